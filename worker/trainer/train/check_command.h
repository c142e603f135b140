// `switchyard-trainer check`: RunCheck on all ranks of this machine, or on one of them.
#pragma once

#include <string>
#include <vector>

#include "worker/trainer/train/check.h"

namespace switchyard::trainer {

struct CheckCommandOptions {
  CheckOptions check;  // rank, precision, activations and rendezvous_id are set from below
  std::string device = "cpu";
  std::string dtype = "float32";
  std::string activation_memory;  // common/model/activation_memory.h; empty: as the plan prefers
  int threads = 0;                // of one rank; 0: cores / ranks
  int rank = -1;                  // -1: start all ranks
};

// `arguments` are this program's, for the ranks that it starts. Returns the process exit code.
int CheckCommand(const CheckCommandOptions& options, const std::vector<std::string>& arguments);

}  // namespace switchyard::trainer
