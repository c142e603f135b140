// AdamW with its state sharded over the ranks (ZeRO-1): every element is owned by one rank of its
// block's group, the world for replicated blocks, the edp group for expert blocks.
//
// One step: ReduceGradients (reduce-scatter of each block, squared norm of what this rank owns),
// the caller adds norms and what must be finite over all ranks by one all-reduce, then Update (own
// shard, all-gather), which does nothing when they are not finite. Gradients are sums over ranks:
// they already carry the 1 / targets of the global batch.
//
// Collective: all ranks call the same methods in the same order. Knows nothing of schedules or
// steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/model/rank_memory.h"
#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/model/final_gradients.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

// This rank's gradient of a block, contiguous [numel], float32 or bfloat16; the same memory at
// every call.
using BlockGradients = std::function<at::Tensor(int block)>;

struct ShardedOptimizerOptions {
  AdamWOptions adamw;
  OptimizerProfile profile = OptimizerProfile::kExact;  // kCompact: on a GPU only
  int64_t seed = 0;                                     // of stochastic rounding
};

class ShardedOptimizer {
 public:
  // Values must be bound; state lies on their device. State starts as zeros, t = 0. Both references
  // must outlive the optimizer.
  ShardedOptimizer(ParameterRegistry& parameters, MeshCommunicators& communicators,
                   const ShardedOptimizerOptions& options);

  // For checkpoints; loading writes into its tensors and sets adam_step, before the first Update.
  // On a GPU the const form first waits for the device, to learn the updates so far.
  OptimizerState& state() { return state_; }
  const OptimizerState& CurrentState();

  // For the decoder in a step's last micro-batch: does early what ReduceGradients would do later.
  // On a GPU a layer's blocks are reduced beside what the current stream does next. The embedding's
  // gradient has few rows that are not 0: all ranks' rows are gathered, and each rank sums those of
  // its shard. `gradients` must live as long as the result.
  FinalGradients ReduceWhenFinal(const BlockGradients& gradients);
  // Replaces this rank's shard of every block's gradient by the sum over the group. The rest is
  // left as it is and must not be used. Returns, on the device, the sum of squares of the elements
  // this rank owns (float64 [1]); NaN or infinite when one of them is, and on a GPU, which adds
  // squares in float32 first, also when one is beyond 1.8e19. The sum of it over the world counts
  // every element of the model once.
  at::Tensor ReduceGradients(const BlockGradients& gradients);
  // Updates the values of all ranks by the reduced gradients, clipped to the norm `max_norm` (0:
  // not at all) by their sum of squares over the world. Does nothing when that or one of `finite`
  // (float64 [n]) is not finite; all ranks must pass equal numbers. Does not wait for a GPU.
  // Returns the number of the call, for NonFiniteParameters.
  int64_t Update(const BlockGradients& gradients, double learning_rate, double max_norm,
                 const at::Tensor& sum_of_squares, const at::Tensor& finite);
  // Names of the parameters whose reduced gradient was not finite on any rank, in registry order,
  // when Update number `update` did nothing. To be asked once for each such update, on a GPU before
  // the next but one is enqueued, on CPU while its gradients are there. Waits for the device.
  std::vector<std::string> NonFiniteParameters(int64_t update, const BlockGradients& gradients);

 private:
  // Elements of one parameter that this rank owns.
  struct Segment {
    int parameter;
    int64_t shard_offset;  // in the block's shard
    int64_t numel;
    bool decays;
  };

  void ReduceLayer(int layer, const BlockGradients& gradients);
  void ReduceEmbedding(const ops::EmbeddingRows& rows, const BlockGradients& gradients,
                       Arena& workspace);
  void ReduceBlock(int block, const at::Tensor& gradient);
  // Adds the squares of this rank's shard of a block to those of the step.
  void AddSquares(int block, const at::Tensor& own);
  void UpdateOnCpu(const BlockGradients& gradients, double learning_rate, double gradient_scale);
  void UpdateOnDevice(const BlockGradients& gradients, double learning_rate,
                      const at::Tensor& non_finite);
  // Cuts the owned elements into runs of one checkpoint tensor each.
  std::vector<ops::UpdateSegment> DeviceSegments(int block) const;
  Communicator& GroupOf(const ParameterBlock& block);
  at::Tensor OwnShard(int block, const at::Tensor& flat) const;

  ParameterRegistry& parameters_;
  MeshCommunicators& communicators_;
  ShardedOptimizerOptions options_;
  bool on_cpu_;
  OptimizerState state_;
  std::vector<std::vector<Segment>>
      segments_;  // [blocks]; together every owned element without padding
  std::vector<at::Tensor> device_segments_;  // [blocks]; undefined where this rank owns nothing
  at::Tensor device_scalars_;                // from the first Update on
  at::Tensor squares_;                       // float64 [1], of the step so far
  int64_t updates_ = 0;                      // calls of Update
  // On a GPU int32 [parameters], by the number of the update: what skipped ones found. Zeros
  // otherwise.
  std::array<at::Tensor, 2> non_finite_;
  std::vector<bool> reduced_;  // [blocks], of the step; early
};

// Factor that brings a gradient of norm `norm` to at most `max_norm`; 1 when max_norm is 0.
double ClipScale(double norm, double max_norm);

}  // namespace switchyard::trainer
