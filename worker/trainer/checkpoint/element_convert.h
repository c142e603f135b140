// Element types of checkpoints to and from float32, and the split of a float32 master into a
// bfloat16 weight and a 16-bit remainder. Host memory, plain loops, no torch tensors.
//
// The split: weight = (bits + 0x8000) >> 16 (half up in magnitude), remainder = bits - (weight <<
// 16) as int16. Joining gives the same bits back. Rounding of float32 to bfloat16 is the split's
// everywhere, so that a weight does not depend on whether its remainder is kept.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "worker/trainer/checkpoint/safetensors.h"

namespace switchyard::trainer {

// Exact. `type` is F32, BF16 or F16; `source` need not be aligned.
void ToFloat(DataType type, const void* source, float* out, int64_t count);

// Rounds to `type` (F32, BF16 or F16). OutOfRange when a finite value would become infinite in F16.
absl::Status FromFloat(const float* source, DataType type, void* out, int64_t count);

void SplitMaster(const float* master, uint16_t* weight, int16_t* remainder, int64_t count);
void JoinMaster(const uint16_t* weight, const int16_t* remainder, float* master, int64_t count);

}  // namespace switchyard::trainer
