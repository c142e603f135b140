// `bench --checkpoint`: how fast this machine and this file system save and load a model.
#pragma once

#include "worker/trainer/bench/bench_command.h"
#include "worker/trainer/optim/sharded_optimizer.h"
#include "worker/trainer/train/rank_context.h"

namespace switchyard::trainer {

// Saves the connected model with the optimizer's state into a new directory under
// options.checkpoint, drops it from the page cache, loads the weights, compares, removes the
// directory. options.model_config is a whole model directory: its files give the layout, its
// weights are not read. Rank 0 prints rates over all ranks, and the host memory that it took.
// Collective. Throws TrainerError: kModel, kOutput.
void BenchCheckpoint(const BenchOptions& options, RankContext& context,
                     ShardedOptimizer& optimizer);

}  // namespace switchyard::trainer
