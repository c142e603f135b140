// Runs a function in several processes at once, as ranks of one group, and waits for them with a
// time limit.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace switchyard::trainer {

// A process group under test. Ranks are forked, so start them before this process uses torch's
// threads.
class RankProcesses {
 public:
  // Starts `ranks` processes; rank r runs body(r) and exits with 0, with 1 when a test expectation
  // failed in it, with 2 (and the text on standard error) when it threw.
  RankProcesses(int ranks, const std::function<void(int rank)>& body);
  // Kills what still runs.
  ~RankProcesses();
  RankProcesses(const RankProcesses&) = delete;
  RankProcesses& operator=(const RankProcesses&) = delete;

  void Kill(int rank, int signal);
  // Exit codes in rank order, 128 + signal for a killed one, -1 for one that still ran at the time
  // limit.
  std::vector<int> Wait(std::chrono::milliseconds limit = std::chrono::seconds(60));

 private:
  std::vector<pid_t> pids_;
  std::vector<int> codes_;
};

// All ranks end with 0 within the time limit, else a test failure.
void RunRanks(int ranks, const std::function<void(int rank)>& body);

// A name that no other test run uses, for shared memory.
std::string UniqueName(const std::string& stem);

}  // namespace switchyard::trainer
