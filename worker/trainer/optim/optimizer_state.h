// This rank's share of the optimizer state under ZeRO-1, as checkpoints see it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace switchyard::trainer {

// State of this rank's shard of one parameter block. Element i belongs to element
// shard_index * shard_numel + i of the block.
struct OptimizerShard {
  int block = 0;          // index into ParameterRegistry::blocks()
  at::Tensor exp_avg;     // [shard_numel] float32 (`compact`: bfloat16)
  at::Tensor exp_avg_sq;  // [shard_numel] float32 (`compact`: bfloat16)
  // int16 [shard_numel]: with a bfloat16 weight w, the float32 master is bits(w) << 16 plus this,
  // sign extended; undefined tensor when weights are float32 or the profile is `compact`.
  at::Tensor master_remainder;
};

struct OptimizerState {
  std::vector<OptimizerShard> shards;  // one per block, in block order
  int64_t adam_step = 0;               // t of the bias correction; skipped steps do not count
};

// Where training stands besides parameters and optimizer state.
struct TrainingProgress {
  int64_t step = 0;  // optimizer steps done, skipped ones included
  int64_t skipped_steps = 0;
  int64_t consecutive_skips = 0;
  int64_t tokens = 0;            // trained on so far
  double initial_eval_loss = 0;  // held-out loss before the first step; NaN when not measured
};

}  // namespace switchyard::trainer
