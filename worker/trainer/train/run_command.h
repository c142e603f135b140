// `switchyard-trainer run`: a whole training run, or one rank of it.
#pragma once

#include <string>
#include <vector>

namespace switchyard::trainer {

struct RunOptions {
  std::string config;  // path of train.json
  int ranks = 0;       // replaces the file's; 0 keeps it
  int rank = -1;       // this process is one rank, started by an agent; -1: start all ranks
};

// Returns the process exit code.
int RunCommand(const RunOptions& options);

}  // namespace switchyard::trainer
