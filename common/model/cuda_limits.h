// What the kernels for GPUs take (kernels/, attention's library): one list for the planner, which
// refuses a job by it, and for the trainer, which looks before it loads anything.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/model_shape.h"

namespace switchyard {

struct CudaLimits {
  static constexpr int64_t kVector = 8;                // elements that are read and written at once
  static constexpr int64_t kExpertWidthMultiple = 16;  // gate and up are interleaved by 16 rows
  static constexpr int64_t kMaxHidden = 8192;
  static constexpr int64_t kMaxHeadsWidth = 10'240;  // query and key heads of a token, elements
  static constexpr int64_t kMaxExperts = 512;
  static constexpr int64_t kMaxExpertsPerToken = 32;
  static constexpr int64_t kMaxExpertParallel = 8;
};

// Tokens of the largest micro-batch. cuDNN's gradient of packed documents has a float32 sum for
// every query head that it addresses by 32-bit byte offsets; beyond them it is silently wrong
// (measured with 32 heads of 128: right with 196,608 tokens, wrong with 262,144). Places of
// documents in the projections' rows are 32-bit, too.
int64_t MaxCudaTokens(const ModelShape& shape);
// What is wrong with a micro-batch, with the fields and the fix; empty when nothing is.
std::string CudaTokensProblem(const ModelShape& shape, int64_t micro_batch_sequences,
                              int64_t sequence_length);

// Every violation of a shape as a sentence with the key of config.json, its value and the fix;
// empty when a GPU can train it.
std::vector<std::string> CudaShapeProblems(const ModelShape& shape);

}  // namespace switchyard
