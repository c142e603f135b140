// One optimizer step: micro-batches, reduced gradients, one agreement of all ranks, update.
//
// Knows nothing of files, evaluation or checkpoints.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/data/batch_order.h"
#include "worker/trainer/data/token_shards.h"
#include "worker/trainer/model/decoder.h"
#include "worker/trainer/model/phase_timer.h"
#include "worker/trainer/optim/schedule.h"
#include "worker/trainer/optim/sharded_optimizer.h"
#include "worker/trainer/train/control_reader.h"
#include "worker/trainer/train/host_copy.h"

namespace switchyard::trainer {

struct TrainStepOptions {
  ScheduleOptions schedule;
  double max_grad_norm = 0;  // 0: no clipping
  double router_aux_loss_coef = 0;
};

// The same on every rank, but for the seconds.
struct StepResult {
  double loss = 0;      // mean cross-entropy over the targets of the global batch
  double aux_loss = 0;  // mean over accumulation indices
  double learning_rate = 0;
  double grad_norm = 0;  // before clipping
  int64_t tokens = 0;
  int64_t targets = 0;
  bool skipped = false;  // loss or gradient not finite: values and optimizer state are untouched
  std::vector<std::string> non_finite_parameters;  // of a skipped step
  Requests agreed;                                 // what every rank was asked for
  double router_entropy = 0;                       // nats, mean over tokens and MoE layers
  at::Tensor
      tokens_per_expert;  // int64 [MoE layers, E] over all ranks; defined when it was sampled
  // Of this rank; on a GPU the device's.
  double seconds = 0;
  std::map<std::string, double> phase_seconds;
};

// A step that has been enqueued; on a GPU it may still run.
struct PendingStep {
  StepResult result;  // what the host knows without waiting
  HostCopy shared;
  std::optional<HostCopy> tokens_per_expert;
  double cross_entropy_scale = 0;
  int64_t update = 0;                 // of the optimizer
  const PhaseTimer* timer = nullptr;  // of the TrainStep, until the next but one Enqueue
};

class TrainStep {
 public:
  // All borrowed.
  TrainStep(Decoder& decoder, ShardedOptimizer& optimizer, MeshCommunicators& communicators,
            const TokenShards& data, BatchOrder& order, const TrainStepOptions& options);

  // Step `step`, 1-based. `requests` is what this rank has been asked for. On CPU the step is over
  // when the call returns; on a GPU nothing waits for it, and the next may be enqueued before
  // Finish, but not the next but one.
  PendingStep Enqueue(int64_t step, const Requests& requests, bool sample_expert_load);
  // Waits for the step; in the order of Enqueue. Collective.
  StepResult Finish(PendingStep pending);
  bool on_cpu() const { return communicators_.world->device().is_cpu(); }

 private:
  Decoder& decoder_;
  ShardedOptimizer& optimizer_;
  MeshCommunicators& communicators_;
  const TokenShards& data_;
  BatchOrder& order_;
  TrainStepOptions options_;
  std::array<PhaseTimer, 2> timers_;  // of the steps that may be pending, in turns
};

// Act on a request only when every rank has been asked. Collective, for boundaries without a step.
Requests AgreeOnRequests(Communicator& world, const Requests& requests);

}  // namespace switchyard::trainer
