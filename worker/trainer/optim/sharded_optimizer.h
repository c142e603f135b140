// AdamW with its state sharded over the ranks (ZeRO-1): every element is owned by one rank of its
// block's group, the world for replicated blocks, the edp group for expert blocks.
//
// One step: ReduceGradients (reduce-scatter of each block, squared norm of what this rank owns),
// the caller agrees with all ranks on norm and finiteness by one all-reduce, then Update (own
// shard, all-gather) or not. Gradients are sums over ranks: they already carry the 1 / targets of
// the global batch.
//
// Collective: all ranks call the same methods in the same order. Knows nothing of schedules or
// steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

// This rank's gradient of a block, contiguous [numel], float32 or bfloat16; the same memory at
// every call.
using BlockGradients = std::function<at::Tensor(int block)>;

class ShardedOptimizer {
 public:
  // Values must be bound. State starts as zeros, t = 0. Both references must outlive the optimizer.
  ShardedOptimizer(ParameterRegistry& parameters, MeshCommunicators& communicators,
                   const AdamWOptions& options);

  // For checkpoints; loading writes into its tensors and sets adam_step.
  OptimizerState& state() { return state_; }
  const OptimizerState& state() const { return state_; }

  // Replaces this rank's shard of every block's gradient by the sum over the group. The rest is
  // left as it is and must not be used. Returns the sum of squares of the elements this rank owns;
  // NaN or infinite exactly when one of them is. The sum of it over the world counts every element
  // of the model once.
  double ReduceGradients(const BlockGradients& gradients);
  // Names of the parameters with a non-finite reduced gradient on any rank, in registry order.
  std::vector<std::string> NonFiniteParameters(const BlockGradients& gradients);
  // Updates the values of all ranks by the reduced gradients times `gradient_scale`.
  void Update(const BlockGradients& gradients, double learning_rate, double gradient_scale);

 private:
  // Elements of one parameter that this rank owns.
  struct Segment {
    int parameter;
    int64_t shard_offset;  // in the block's shard
    int64_t numel;
    bool decays;
  };

  Communicator& GroupOf(const ParameterBlock& block);
  at::Tensor OwnShard(int block, const at::Tensor& flat) const;

  ParameterRegistry& parameters_;
  MeshCommunicators& communicators_;
  AdamWOptions options_;
  OptimizerState state_;
  std::vector<std::vector<Segment>>
      segments_;  // [blocks]; together every owned element without padding
};

// Factor that brings a gradient of norm `norm` to at most `max_norm`; 1 when max_norm is 0.
double ClipScale(double norm, double max_norm);

}  // namespace switchyard::trainer
