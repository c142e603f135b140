// Command lines and environments of the agent's children.
#pragma once

#include <string>
#include <vector>

#include "switchyard/agent/v1/agent.pb.h"
#include "worker/agent/core/types.h"
#include "worker/agent/process/spawn.h"

namespace switchyard::agent {

struct LaunchOptions {
  std::string work_dir;
  std::string trainer;       // switchyard-trainer
  std::string python;        // interpreter with transformers and pyarrow
  std::string prepare_data;  // tools/prepare_data.py
  std::string self;  // this program, to run a child that dies with it; empty: run the child itself
  std::string fabric_interface;  // for NCCL; empty: its own choice
  int64_t data_cache_bytes = 0;  // of prepared data kept for later jobs; 0: none
  int cpu_cores = 1;
  int slots = 1;
  std::vector<std::string> gpus;  // UUIDs of all slots' GPUs
};

// Name of the trainer's configuration in the attempt's directory; the same for all ranks.
inline constexpr char kTrainerConfigFile[] = "train.json";

// A rank on a GPU sees that one as its first, and the node's others behind it: without them it
// could not map their memory, over which neighbours exchange rows.
SpawnRequest RankRequest(const LaunchOptions& options, const v1::Slot& slot, const ProcessKey& key);
SpawnRequest PreparationRequest(const LaunchOptions& options, const v1::PrepareData& request);

// What children inherit of this process's environment: names on a short list only, so that a job
// does not depend on how the agent was started and secrets of the agent do not reach it.
std::vector<std::string> InheritedEnvironment();

}  // namespace switchyard::agent
