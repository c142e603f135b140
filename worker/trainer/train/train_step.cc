#include "worker/trainer/train/train_step.h"

#include <ATen/ops/zeros.h>

#include <cmath>
#include <utility>

#include "worker/trainer/data/batch_builder.h"
#include "worker/trainer/model/phase_timer.h"

namespace switchyard::trainer {
namespace {

// What ranks add up in the step's one agreement. The first two must be finite for an update.
enum Shared {
  kCrossEntropy,
  kAuxLoss,
  kSquares,
  kTokens,
  kEntropy,
  kCheckpoint,
  kStop,
  kNumShared
};

Requests AllAsked(double checkpoint, double stop, int ranks) {
  return {.checkpoint = checkpoint == ranks, .stop = stop == ranks};
}

PhaseTimer MakeTimer(const Decoder& decoder, const BatchOrder& order) {
  const DecoderOptions& options = decoder.options();
  return PhaseTimer(options.device, order.accumulation_steps(), options.shape.num_moe_layers());
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
      options_(options),
      timers_{MakeTimer(decoder, order), MakeTimer(decoder, order)} {}

PendingStep TrainStep::Enqueue(int64_t step, const Requests& requests, bool sample_expert_load) {
  PendingStep pending;
  StepResult& result = pending.result;
  PhaseTimer& phases = timers_[static_cast<size_t>(step) % timers_.size()];
  pending.timer = &phases;
  phases.Begin();
  phases.Enter(StepPhase::kData);
  const int64_t accumulation = order_.accumulation_steps();
  result.targets = CountTargets(data_, order_.GlobalBatch(step - 1));
  result.learning_rate = LearningRate(options_.schedule, step);
  const LossScale scale = {
      .cross_entropy = 1.0 / static_cast<double>(std::max<int64_t>(1, result.targets)),
      .aux = options_.router_aux_loss_coef / static_cast<double>(accumulation)};

  // Gradients of this rank's micro-batches.
  Communicator& world = *communicators_.world;
  at::Tensor shared =
      at::zeros({kNumShared}, at::TensorOptions().dtype(at::kDouble).device(world.device()));
  const auto sum = [&shared](Shared which) { return shared.narrow(0, which, 1); };
  const BlockGradients gradients = [this](int block) { return decoder_.BlockGradient(block); };
  decoder_.ZeroGradients();
  at::Tensor tokens_per_expert;
  for (int64_t index = 0; index < accumulation; ++index) {
    const Batch batch =
        BuildBatch(data_, order_.MicroBatch(step - 1, index, communicators_.world->rank()));
    FinalGradients reduce;
    if (index + 1 == accumulation) reduce = optimizer_.ReduceWhenFinal(gradients);
    const MicroBatchResult micro = decoder_.ForwardBackward(batch, scale, &phases, reduce);
    const auto tokens = static_cast<double>(micro.tokens);
    sum(kCrossEntropy).add_(micro.sums.narrow(0, 0, 1));
    // Every rank has the same: the mean over ranks of it is it.
    sum(kAuxLoss).add_(micro.sums.narrow(0, 1, 1),
                       1.0 / static_cast<double>(accumulation * world.size()));
    sum(kEntropy).add_(micro.sums.narrow(0, 2, 1), tokens);
    sum(kTokens).add_(tokens);
    if (!sample_expert_load || !micro.tokens_per_expert.defined()) continue;
    if (!tokens_per_expert.defined()) {
      tokens_per_expert = at::zeros(micro.tokens_per_expert.sizes(),
                                    micro.tokens_per_expert.options().dtype(at::kLong));
    }
    tokens_per_expert.add_(micro.tokens_per_expert);
  }

  // Sum over ranks; every rank owns a part.
  phases.Enter(StepPhase::kReduceGradients);
  sum(kSquares).copy_(optimizer_.ReduceGradients(gradients));

  // What all ranks must decide together.
  phases.Enter(StepPhase::kAgree);
  sum(kCheckpoint).fill_(requests.checkpoint ? 1 : 0);
  sum(kStop).fill_(requests.stop ? 1 : 0);
  world.AllReduce(shared);
  if (tokens_per_expert.defined()) world.AllReduce(tokens_per_expert);
  pending.cross_entropy_scale = scale.cross_entropy;
  pending.shared = ReadBack(shared);
  if (tokens_per_expert.defined()) pending.tokens_per_expert = ReadBack(tokens_per_expert);

  phases.Enter(StepPhase::kUpdate);
  pending.update = optimizer_.Update(gradients, result.learning_rate, options_.max_grad_norm,
                                     sum(kSquares), shared.narrow(0, kCrossEntropy, 2));
  phases.End();
  return pending;
}

StepResult TrainStep::Finish(PendingStep pending) {
  StepResult result = std::move(pending.result);
  const at::Tensor shared = pending.shared.Wait();
  communicators_.world->Check();
  result.seconds = pending.timer->TotalSeconds();
  result.phase_seconds = pending.timer->Seconds();
  const double* sums = shared.const_data_ptr<double>();
  result.agreed = AllAsked(sums[kCheckpoint], sums[kStop], communicators_.world->size());
  result.loss = sums[kCrossEntropy] * pending.cross_entropy_scale;
  result.aux_loss = sums[kAuxLoss];
  result.grad_norm = std::sqrt(sums[kSquares]);
  result.tokens = static_cast<int64_t>(sums[kTokens]);
  result.router_entropy = sums[kTokens] > 0 ? sums[kEntropy] / sums[kTokens] : 0;
  if (pending.tokens_per_expert) result.tokens_per_expert = pending.tokens_per_expert->Wait();
  result.skipped = !std::isfinite(result.loss) || !std::isfinite(result.aux_loss) ||
                   !std::isfinite(result.grad_norm);
  if (result.skipped) {
    result.non_finite_parameters = optimizer_.NonFiniteParameters(
        pending.update, [this](int block) { return decoder_.BlockGradient(block); });
  }
  return result;
}

Requests AgreeOnRequests(Communicator& world, const Requests& requests) {
  at::Tensor asked = at::zeros({2}, at::kDouble);
  asked[0] = requests.checkpoint ? 1 : 0;
  asked[1] = requests.stop ? 1 : 0;
  asked = asked.to(world.device());
  world.AllReduce(asked);
  asked = asked.cpu();
  return AllAsked(asked[0].item<double>(), asked[1].item<double>(), world.size());
}

}  // namespace switchyard::trainer
