// The model on one rank: forward and backward of a micro-batch, written out, over memory allocated
// once.
//
// Used by the training loop, `check` and `bench`. Knows nothing of files, optimizers, schedules or
// steps. Collective: with expert parallelism, or more than one rank, all ranks call the same
// methods in the same order with micro-batches of the same shape.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "common/mesh.h"
#include "common/model/activation_memory.h"
#include "common/model/model_shape.h"
#include "common/model/rank_memory.h"
#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/data/batch.h"
#include "worker/trainer/model/final_gradients.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/model/phase_timer.h"
#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

struct DecoderOptions {
  ModelShape shape;
  Mesh mesh;
  int rank = 0;
  MeshCommunicators* communicators = nullptr;  // borrowed
  TokenDispatcher* dispatcher = nullptr;  // borrowed; may be null for a model without MoE layers
  Precision precision = Precision::kFloat32;
  OptimizerProfile optimizer = OptimizerProfile::kExact;  // for the plan of memory()
  at::Device device = at::kCPU;     // a GPU needs bfloat16 and installed ops::DeviceOps
  int64_t max_sequences = 1;        // B of the largest micro-batch
  int64_t max_sequence_length = 1;  // S; on CPU only B * S limits a batch
  int64_t gradient_accumulation = 1;
  std::optional<ActivationMemory> activations = std::nullopt;  // as in RankMemoryInput
};

// How a micro-batch counts in the step's loss.
struct LossScale {
  // Of the summed cross-entropy: 1 / targets of the global batch.
  double cross_entropy = 1;
  // Of the auxiliary loss of this accumulation index: coefficient / accumulation steps.
  double aux = 0;
};

// What a micro-batch gave. Tensors lie on the device; the functions wait for it.
struct MicroBatchResult {
  int64_t targets = 0;  // of this rank
  int64_t tokens = 0;   // of this rank, without padding
  // float64 [3]: cross-entropy, auxiliary loss, router entropy, as the functions below give them.
  at::Tensor sums;
  // int32 [MoE layers, E]: this rank's tokens by expert, until the next forward. Undefined without
  // MoE layers.
  at::Tensor tokens_per_expert;

  // Nats, sum over this rank's targets.
  double cross_entropy_sum() const { return sums[0].item<double>(); }
  // Transformers' formula, over all layers and all ranks; 0 without MoE layers.
  double aux_loss() const { return sums[1].item<double>(); }
  // Nats, mean over this rank's tokens and MoE layers.
  double router_entropy() const { return sums[2].item<double>(); }
};

struct EvalResult {
  double cross_entropy_sum = 0;
  int64_t targets = 0;
};

// High-water mark against planned size, bytes; the sums over the arenas.
struct ArenaUse {
  int64_t planned = 0;
  int64_t high_water = 0;
};

class Decoder {
 public:
  // Allocates parameters, slots and workspace with the sizes of ComputeRankMemory. Values are not
  // initialised. InvalidArgument-like misuse and lack of memory throw c10::Error.
  static std::unique_ptr<Decoder> Create(DecoderOptions options);
  ~Decoder();

  ParameterRegistry& parameters();
  const DecoderOptions& options() const;
  const RankMemory& memory() const;
  ArenaUse arena_use() const;

  // Values N(0, initializer_range), norms 1, keyed by (seed, tensor, expert): the same on any mesh,
  // but not on CPU and GPU.
  void InitializeRandom(int64_t seed);

  // Adds this micro-batch's gradient of
  //   scale.cross_entropy * sum of cross-entropy + scale.aux * auxiliary loss
  // to the gradients: with accumulation to float32 sums, without it they are set. The sum of the
  // ranks' gradients is the gradient of the global loss. Activations take the place of the
  // gradients of the step before, so without accumulation those must be used up. `phases`, when
  // given, is told of forward, backward, dispatch and combine.
  MicroBatchResult ForwardBackward(const Batch& batch, const LossScale& scale,
                                   PhaseTimer* phases = nullptr,
                                   const FinalGradients& final_gradients = {});
  // Cross-entropy only. Overwrites gradients when there is no accumulation.
  EvalResult Evaluate(const Batch& batch);
  // All logits [T, V] in the parameter dtype, newly allocated. Overwrites gradients like Evaluate.
  at::Tensor Logits(const Batch& batch);

  // Call at the start of every optimizer step.
  void ZeroGradients();
  // This rank's gradient of block `block` (index into parameters().blocks()), contiguous [numel],
  // padding 0; gradient_dtype(). May be changed in place.
  at::Tensor BlockGradient(int block);
  // View of one parameter's gradient in its shape.
  at::Tensor Gradient(int parameter);
  // Parameter dtype without accumulation, float32 with.
  at::ScalarType gradient_dtype() const;

 private:
  struct Parts;
  explicit Decoder(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace switchyard::trainer
