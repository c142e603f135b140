// Starts the ranks of a mesh as processes of this machine and talks to them as an agent would: for
// a trainer that runs alone.
//
// A rank is this program with the same arguments and `--rank R`; it gets fd 3 and fd 4 as pipes and
// nothing else, and OpenMP threads that soon sleep (GOMP_SPINCOUNT, unless set).
// When one fails, all are killed. Knows the lines, but nothing of training.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace switchyard::trainer {

struct LocalRanksOptions {
  int ranks = 1;
  std::vector<std::string> arguments;  // of this program, without its name and `--rank`
  // Called with every line of a rank (JSON text). Rendezvous lines are relayed to all ranks
  // besides.
  std::function<void(int rank, const std::string& line)> on_line;
};

// Returns when all have ended: 0, or the exit code of the first rank that failed (128 + signal),
// told on standard error. A rank that only lost its peer does not count as the first when another
// one failed by itself.
int RunLocalRanks(const LocalRanksOptions& options);

}  // namespace switchyard::trainer
