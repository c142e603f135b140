// The agent's children: their pipes, their ends, their process groups.
//
// Every group's first process stays a zombie until the whole group is gone, so its number can be
// taken by no other process and a signal to the group never hits a stranger. "Gone" counts
// descendants too: the agent is a child subreaper, and a group with anyone alive in it is not gone.
// Driven by a Poller; not thread-safe.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "common/clock.h"
#include "worker/agent/core/types.h"
#include "worker/agent/host/poller.h"
#include "worker/agent/process/line_reader.h"
#include "worker/agent/process/spawn.h"

namespace switchyard::agent {

class ProcessTable {
 public:
  // Called from Poller::Wait and Poll. Of one process: all its output and lines come before
  // on_exit.
  struct Callbacks {
    std::function<void(const ProcessKey&, absl::string_view line)> on_line;
    std::function<void(const ProcessKey&)> on_too_long_line;
    std::function<void(const ProcessKey&, absl::string_view bytes)> on_output;
    std::function<void(const ProcessKey&, int exit_code, int signal)> on_exit;
    std::function<void(const GroupKey&)> on_group_gone;
  };

  ProcessTable(Poller& poller, Callbacks callbacks);
  ~ProcessTable();  // closes pipes; the processes' agent is gone then, and so are they

  // Starts the process in the group of its key. Returns its pid.
  absl::StatusOr<pid_t> Start(const ProcessKey& key, SpawnRequest request);
  // Whole group, nothing when it is gone.
  void Signal(const GroupKey& key, int signal);
  // Queues a line (newline is added) for the process's fd 4; never blocks. Dropped when the process
  // is gone or reads nothing for kMaxQueuedBytes.
  void Write(const ProcessKey& key, const std::string& line);
  // Looks whether groups are gone; call every kPollInterval while polling().
  void Poll();
  bool polling() const;
  // Reaps descendants that had left their group and died; they are nobody's but ours. Call now and
  // then.
  void ReapStrays();
  // The group's number while it exists.
  std::optional<pid_t> group_pid(const GroupKey& key) const;

  static constexpr std::chrono::milliseconds kPollInterval{20};
  static constexpr size_t kMaxQueuedBytes = 1 << 20;

 private:
  struct Process {
    SpawnedProcess io;
    LineReader reader;
    std::string queued;
  };
  struct Group {
    pid_t pid = 0;
    int running = 0;
  };

  void ReadLog(const ProcessKey& key);
  void ReadLines(const ProcessKey& key);
  void Flush(const ProcessKey& key);
  void OnEnded(const ProcessKey& key);
  void ClosePipe(UniqueFd& fd);

  Poller& poller_;
  Callbacks callbacks_;
  std::map<ProcessKey, Process> processes_;
  std::map<GroupKey, Group> groups_;
};

}  // namespace switchyard::agent
