// What every module of the stack sees of the micro-batch that runs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "common/model/activation_memory.h"
#include "worker/trainer/data/batch.h"
#include "worker/trainer/model/arena.h"
#include "worker/trainer/model/phase_timer.h"
#include "worker/trainer/moe/load_balance.h"
#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

struct StepContext {
  const Batch& batch;
  Arena& workspace;             // temporaries of one call
  TokenDispatcher* dispatcher;  // null without MoE layers
  LoadBalance& balance;
  at::Tensor cos;  // float32 [T, C / 2]
  at::Tensor sin;
  at::ScalarType dtype;  // of activations
  int64_t row_capacity;  // RankMemory::row_capacity
  SavedParts saved;      // what layers keep for their backward, beyond the least
  // The number of rows is not known to the host (a GPU): see moe/expert_bank.h.
  bool rows_on_device = false;
  PhaseTimer* phases = nullptr;  // borrowed; null when nobody asks where the time goes
  // Called by the backward of every attention when it is about to start: the longest time in which
  // other kernels may take multiprocessors at little cost. May be empty.
  std::function<void()> beside_attention = nullptr;

  // Where a layer takes what is kept only when `kept`: from its slot, or from the workspace.
  Arena& Keep(bool kept, Arena& slot) const { return kept ? slot : workspace; }
  int64_t num_tokens() const { return batch.num_sequences * batch.sequence_length; }  // T
};

}  // namespace switchyard::trainer
