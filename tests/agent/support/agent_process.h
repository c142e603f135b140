// The real switchyard-agent as a child of the test, in a work directory of its own.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "worker/agent/process/proc_fs.h"
#include "worker/agent/process/spawn.h"

namespace switchyard::agent {

inline std::string ProgramPath(const std::string& name) {
  const char* directory = std::getenv("SWITCHYARD_BINARY_DIR");
  if (directory != nullptr) return std::string(directory) + "/bin/" + name;
  return (std::filesystem::read_symlink("/proc/self/exe").parent_path() / name).string();
}

// Waits until `condition` holds; false after `limit`.
template <typename Condition>
bool Eventually(Condition condition, std::chrono::seconds limit = std::chrono::seconds(20)) {
  const auto until = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

inline bool Alive(pid_t pid) {
  const auto stat = ReadProcStat(pid);
  return stat.has_value() && stat->alive();
}

class AgentProcess {
 public:
  // `extra`: flags and values that add to or replace the usual ones.
  AgentProcess(const std::string& coordinator, std::vector<std::string> extra = {})
      : coordinator_(coordinator), extra_(std::move(extra)) {
    char pattern[] = "/tmp/switchyard-agent-test-XXXXXX";
    work_dir_ = mkdtemp(pattern);
    Start();
  }
  ~AgentProcess() {
    if (pid_ != 0) Kill(SIGKILL);
    if (::testing::Test::HasFailure()) std::cerr << stderr_text();
    std::filesystem::remove_all(work_dir_);
  }

  void Start() {
    std::map<std::string, std::string> flags = {{"--coordinator", coordinator_},
                                                {"--node", "node-a"},
                                                {"--cpu-slots", "2"},
                                                {"--metrics", "127.0.0.1:0"},
                                                {"--work-dir", work_dir_},
                                                {"--trainer", ProgramPath("fake_trainer")}};
    for (size_t i = 0; i + 1 < extra_.size(); i += 2) flags[extra_[i]] = extra_[i + 1];
    std::vector<std::string> arguments = {ProgramPath("switchyard-agent")};
    for (const auto& [name, value] : flags) arguments.insert(arguments.end(), {name, value});
    const std::string errors = work_dir_ + "/stderr";
    pid_ = fork();
    if (pid_ == 0) {
      if (std::freopen(errors.c_str(), "a", stderr) == nullptr) std::_Exit(126);
      std::vector<char*> pointers;
      for (auto& argument : arguments) pointers.push_back(argument.data());
      pointers.push_back(nullptr);
      execv(pointers[0], pointers.data());
      std::_Exit(127);
    }
  }
  // Sends the signal and waits for the end; returns the exit code or 128 + signal.
  int Kill(int signal) {
    kill(pid_, signal);
    return Wait();
  }
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  size_t OpenDescriptors() const {
    const std::filesystem::directory_iterator fds("/proc/" + std::to_string(pid_) + "/fd");
    return static_cast<size_t>(std::distance(begin(fds), end(fds)));
  }
  // Dead children that nobody has reaped.
  int Zombies() const {
    int zombies = 0;
    for (const ProcStat& process : AllProcesses()) {
      zombies += !process.alive() && process.parent == pid_;
    }
    return zombies;
  }
  std::string stderr_text() const {
    std::ifstream file(work_dir_ + "/stderr");
    return {std::istreambuf_iterator<char>(file), {}};
  }
  const std::string& work_dir() const { return work_dir_; }
  pid_t pid() const { return pid_; }

 private:
  std::string coordinator_;
  std::vector<std::string> extra_;
  std::string work_dir_;
  pid_t pid_ = 0;
};

}  // namespace switchyard::agent
