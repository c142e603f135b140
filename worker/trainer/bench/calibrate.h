// `bench --calibrate`: what this machine's devices do a second, for the planner's predictions.
//
// Measures the operations that the engine is made of, as the engine calls them. Knows nothing of
// how a prediction is made of the rates (coordinator/plan).
#pragma once

#include "worker/trainer/bench/bench_command.h"
#include "worker/trainer/train/rank_channels.h"
#include "worker/trainer/train/run_end.h"

namespace switchyard::trainer {

// Collective over options.ranks. Rank 0 prints a table and, with options.out, puts this device into
// that file: entries of other devices in it stay. Throws TrainerError: kOutput for a file that is
// something else, kConfig for shapes or ranks that do not fit.
RunEnd Calibrate(const BenchOptions& options, int rank, RankChannels& channels);

}  // namespace switchyard::trainer
