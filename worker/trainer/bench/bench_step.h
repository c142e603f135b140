// A training step on random tokens: what `bench` and its calibration run.
#pragma once

#include <cstdint>

#include "worker/trainer/bench/bench_command.h"
#include "worker/trainer/data/batch.h"
#include "worker/trainer/model/phase_timer.h"
#include "worker/trainer/optim/sharded_optimizer.h"
#include "worker/trainer/train/rank_context.h"

namespace switchyard::trainer {

// Full sequences of random tokens, options.documents in each.
Batch RandomBatch(const BenchOptions& options, int64_t vocab_size, uint32_t seed);

// A whole step, without an optimizer forward and backward only. On a GPU nothing waits for it.
// `phases` may be null. Collective.
void EnqueueStep(const BenchOptions& options, RankContext& context, ShardedOptimizer* optimizer,
                 const Batch& batch, PhaseTimer* phases);

}  // namespace switchyard::trainer
