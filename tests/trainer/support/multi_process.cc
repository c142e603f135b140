#include "tests/trainer/support/multi_process.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <thread>

namespace switchyard::trainer {

RankProcesses::RankProcesses(int ranks, const std::function<void(int rank)>& body) {
  std::fflush(nullptr);
  const pid_t parent = getpid();
  for (int rank = 0; rank < ranks; ++rank) {
    const pid_t pid = fork();
    if (pid != 0) {
      pids_.push_back(pid);
      codes_.push_back(-1);
      continue;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(3);
    at::set_num_threads(1);  // ranks share the cores; idle OpenMP threads would spin on them
    int code = 0;
    try {
      body(rank);
      code = ::testing::Test::HasFailure() ? 1 : 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "rank %d: %s\n", rank, error.what());
      code = 2;
    }
    std::fflush(nullptr);
    _exit(code);
  }
}

RankProcesses::~RankProcesses() {
  for (size_t r = 0; r < pids_.size(); ++r) {
    if (pids_[r] <= 0) continue;
    kill(pids_[r], SIGKILL);
    waitpid(pids_[r], nullptr, 0);
  }
}

void RankProcesses::Kill(int rank, int signal) { kill(pids_[rank], signal); }

std::vector<int> RankProcesses::Wait(std::chrono::milliseconds limit) {
  const auto deadline = std::chrono::steady_clock::now() + limit;
  bool running = true;
  while (running && std::chrono::steady_clock::now() < deadline) {
    running = false;
    for (size_t r = 0; r < pids_.size(); ++r) {
      if (pids_[r] <= 0) continue;
      int status = 0;
      if (waitpid(pids_[r], &status, WNOHANG) == pids_[r]) {
        codes_[r] = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        pids_[r] = 0;
      } else {
        running = true;
      }
    }
    if (running) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return codes_;
}

void RunRanks(int ranks, const std::function<void(int rank)>& body) {
  RankProcesses processes(ranks, body);
  EXPECT_EQ(processes.Wait(), std::vector<int>(ranks, 0));
}

std::string UniqueName(const std::string& stem) {
  static int count = 0;
  return "switchyard-test-" + stem + "-" + std::to_string(getpid()) + "-" + std::to_string(count++);
}

}  // namespace switchyard::trainer
