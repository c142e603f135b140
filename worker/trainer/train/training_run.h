// A whole training run on one rank: load, evaluate, train, save, until the end or until it is asked
// to stop.
//
// Knows nothing of processes: who started this rank and who reads its lines is up to the reporter
// and the control reader. Collective: every rank of the mesh runs it with the same configuration.
#pragma once

#include <string>

#include "worker/trainer/train/rank_channels.h"
#include "worker/trainer/train/run_end.h"
#include "worker/trainer/train/trainer_config.h"

namespace switchyard::trainer {

// Never throws: whatever goes wrong is in the result. `config_json` is kept with checkpoints.
RunEnd RunTraining(const TrainerConfig& config, const std::string& config_json, int rank,
                   RankChannels& channels);

}  // namespace switchyard::trainer
