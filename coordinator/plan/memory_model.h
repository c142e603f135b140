// A rank's bytes as the plan shows them, and the bytes of a checkpoint. The arithmetic of the
// arenas is common/model/rank_memory.h; here it gets the runtime's baseline and the margin.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/model/rank_memory.h"

namespace switchyard::coordinator {

// Share of a slot's memory that plans leave free: allocator rounding, fragmentation, prediction
// error.
inline constexpr double kMemoryMargin = 0.05;

struct MemoryPlan {
  std::vector<std::pair<std::string, int64_t>>
      categories;           // in the order of v1.MemoryCategory.name
  int64_t total_bytes = 0;  // saturates at kTooManyBytes
  ActivationMemory activations = ActivationMemory::kRecomputeRows;  // what the bytes are for
};

MemoryPlan PlanMemory(const RankMemoryInput& input, int64_t runtime_baseline_bytes);

// True when `needed` bytes leave the margin in `capacity`.
bool FitsWithMargin(int64_t needed, int64_t capacity);

// Bytes of one checkpoint: model files as large as the input's (`model_bytes`), and the training
// state.
int64_t CheckpointBytes(const ModelShape& model, int64_t model_bytes, Precision precision,
                        OptimizerProfile optimizer);

}  // namespace switchyard::coordinator
