// Reads the agent's lines (fd 4) on a thread of its own.
//
// End of file means that the agent is gone: the process ends at once with kAgentGoneExitCode,
// whatever it does.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/unique_fd.h"

namespace switchyard::trainer {

// What this rank has been asked for and not done yet. Ranks act on it only when they all agreed.
struct Requests {
  bool checkpoint = false;
  bool stop = false;  // with `checkpoint`: after saving
};

class ControlReader {
 public:
  // With an invalid fd nothing is ever asked.
  explicit ControlReader(UniqueFd fd);
  // Ends the thread. End of file from here on is no surprise.
  ~ControlReader();
  ControlReader(const ControlReader&) = delete;
  ControlReader& operator=(const ControlReader&) = delete;

  // The communicator id of this attempt; nothing when none came within `limit`.
  std::optional<std::string> WaitForRendezvous(std::chrono::milliseconds limit);
  Requests requests() const;
  // Called when all ranks have agreed to act.
  void Done(const Requests& requests);
  // Reason of the newest stop.
  std::string stop_reason() const;

 private:
  void Run();
  void Take(const std::string& line);

  UniqueFd fd_;
  UniqueFd wake_read_, wake_write_;  // a pipe whose end of file ends the thread
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::string> rendezvous_;
  Requests requests_;
  std::string stop_reason_;
  std::thread thread_;
};

}  // namespace switchyard::trainer
