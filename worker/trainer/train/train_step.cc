#include "worker/trainer/train/train_step.h"

#include <ATen/ops/zeros.h>

#include <cmath>

#include "worker/trainer/data/batch_builder.h"
#include "worker/trainer/model/phase_timer.h"

namespace switchyard::trainer {
namespace {

// What ranks add up in the step's one agreement.
enum Shared { kSquares, kCrossEntropy, kTokens, kEntropy, kCheckpoint, kStop, kNumShared };

Requests AllAsked(double checkpoint, double stop, int ranks) {
  return {.checkpoint = checkpoint == ranks, .stop = stop == ranks};
}

}  // namespace

TrainStep::TrainStep(Decoder& decoder, ShardedOptimizer& optimizer,
                     MeshCommunicators& communicators, const TokenShards& data, BatchOrder& order,
                     const TrainStepOptions& options)
    : decoder_(decoder),
      optimizer_(optimizer),
      communicators_(communicators),
      data_(data),
      order_(order),
      options_(options) {}

StepResult TrainStep::Run(int64_t step, const Requests& requests, bool sample_expert_load) {
  StepResult result;
  PhaseTimer phases;
  phases.Enter(StepPhase::kData);
  const int64_t accumulation = order_.accumulation_steps();
  result.targets = CountTargets(data_, order_.GlobalBatch(step - 1));
  const LossScale scale = {
      .cross_entropy = 1.0 / static_cast<double>(std::max<int64_t>(1, result.targets)),
      .aux = options_.router_aux_loss_coef / static_cast<double>(accumulation)};

  // Gradients of this rank's micro-batches.
  at::Tensor shared = at::zeros({kNumShared}, at::kDouble);
  double* sums = shared.mutable_data_ptr<double>();
  decoder_.ZeroGradients();
  for (int64_t index = 0; index < accumulation; ++index) {
    const Batch batch =
        BuildBatch(data_, order_.MicroBatch(step - 1, index, communicators_.world->rank()));
    const MicroBatchResult micro = decoder_.ForwardBackward(batch, scale, &phases);
    sums[kCrossEntropy] += micro.cross_entropy_sum;
    sums[kTokens] += static_cast<double>(micro.tokens);
    sums[kEntropy] += micro.router_entropy * static_cast<double>(micro.tokens);
    result.aux_loss += micro.aux_loss / static_cast<double>(accumulation);
    if (!sample_expert_load || !micro.tokens_per_expert.defined()) continue;
    if (!result.tokens_per_expert.defined()) {
      result.tokens_per_expert = at::zeros(micro.tokens_per_expert.sizes(), at::kLong);
    }
    result.tokens_per_expert.add_(micro.tokens_per_expert);
  }

  // Sum over ranks; every rank owns a part.
  phases.Enter(StepPhase::kReduceGradients);
  const BlockGradients gradients = [this](int block) { return decoder_.BlockGradient(block); };
  sums[kSquares] = optimizer_.ReduceGradients(gradients);

  // What all ranks must decide together.
  phases.Enter(StepPhase::kAgree);
  sums[kCheckpoint] = requests.checkpoint ? 1 : 0;
  sums[kStop] = requests.stop ? 1 : 0;
  communicators_.world->AllReduce(shared);
  result.agreed = AllAsked(sums[kCheckpoint], sums[kStop], communicators_.world->size());
  result.loss = sums[kCrossEntropy] * scale.cross_entropy;
  result.grad_norm = std::sqrt(sums[kSquares]);
  result.tokens = static_cast<int64_t>(sums[kTokens]);
  result.router_entropy = sums[kTokens] > 0 ? sums[kEntropy] / sums[kTokens] : 0;
  result.learning_rate = LearningRate(options_.schedule, step);
  if (result.tokens_per_expert.defined()) communicators_.world->AllReduce(result.tokens_per_expert);

  phases.Enter(StepPhase::kUpdate);
  result.skipped = !std::isfinite(result.loss) || !std::isfinite(result.aux_loss) ||
                   !std::isfinite(result.grad_norm);
  if (result.skipped) {
    result.non_finite_parameters = optimizer_.NonFiniteParameters(gradients);
  } else {
    optimizer_.Update(gradients, result.learning_rate,
                      ClipScale(result.grad_norm, options_.max_grad_norm));
  }
  phases.Enter(StepPhase::kOther);
  result.phase_seconds = phases.Seconds();
  return result;
}

Requests AgreeOnRequests(Communicator& world, const Requests& requests) {
  at::Tensor asked = at::zeros({2}, at::kDouble);
  double* values = asked.mutable_data_ptr<double>();
  values[0] = requests.checkpoint ? 1 : 0;
  values[1] = requests.stop ? 1 : 0;
  world.AllReduce(asked);
  return AllAsked(values[0], values[1], world.size());
}

}  // namespace switchyard::trainer
