// The agent on a real machine: does what the core says with processes, files and the stream to the
// coordinator, and tells the core what happens.
//
// One thread runs everything; gRPC's threads and the file worker hand their results over through an
// inbox.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "common/security/allowed_paths.h"
#include "common/service_notifier.h"
#include "worker/agent/core/agent_core.h"
#include "worker/agent/files/file_worker.h"
#include "worker/agent/host/inbox.h"
#include "worker/agent/host/launch.h"
#include "worker/agent/host/metrics.h"
#include "worker/agent/host/options.h"
#include "worker/agent/host/poller.h"
#include "worker/agent/host/session_driver.h"
#include "worker/agent/journal/journal.h"
#include "worker/agent/log/log_spool.h"
#include "worker/agent/process/process_table.h"

namespace switchyard::agent {

class AgentHost {
 public:
  // Takes the work directory, removes what an earlier run left, counts slots, opens /metrics.
  // Errors say what to do about them.
  static absl::StatusOr<std::unique_ptr<AgentHost>> Create(const AgentOptions& options);
  ~AgentHost();

  // Until RequestShutdown and everything is stopped. Tells `systemd` how it stands.
  void Run(ServiceNotifier& systemd);
  // From any thread.
  void RequestShutdown();
  // After Run: the coordinator has all results, and nobody needs the work directory any more.
  bool left() const { return core_.left(); }

 private:
  using Time = Clock::SteadyTime;

  struct Parts {
    UniqueFd lock;
    Journal journal;
    AgentCore::Options core;
    AgentCore::Recovered recovered;
    std::unique_ptr<AgentMetrics> metrics;
    security::PathPolicy paths;
    SessionDriver::Credentials credentials;
  };
  AgentHost(const AgentOptions& options, Parts parts);

  void Turn();
  void TellSystemd(ServiceNotifier& systemd, Time now);
  std::optional<std::chrono::milliseconds> UntilNextTurn() const;
  // Steps the core with `input` and everything that follows from it.
  void Feed(Input input);

  void Do(agent::Send& output);
  void Do(CloseStream& output);
  void Do(StartRank& output);
  void Do(StartPreparation& output);
  void Do(SignalGroup& output);
  void Do(WriteLine& output);
  void Do(JournalResult& output);
  void Do(ForgetAttempt& output);
  void Do(RememberStore& output);
  void Do(Probe& output);
  void Do(Publish& output);
  void Do(Remove& output);
  void Do(LogsStored& output);
  void Do(Note& output);
  void Do(ShutdownComplete& output);

  void OnLine(const ProcessKey& key, absl::string_view line);
  void OnExit(const ProcessKey& key, int exit_code, int signal);
  void BadLine(const ProcessKey& key, const std::string& why);
  // Common to ranks and data preparation: directory, log, process, pid file.
  void Start(const ProcessKey& key, int slot, SpawnRequest request);
  // Remembers the attempt's trace for log lines, and hands it to a child.
  void Trace(const AttemptKey& key, const std::string& trace_id, SpawnRequest& request);
  std::string TraceOf(const AttemptKey& key) const;
  absl::Status WriteTrainerConfig(const StartRank& rank);
  // Tells the core about groups that are gone and whose logs are sent.
  void ReleaseFlushedGroups(Time now);
  void CloseForgotten(Time now);
  // Logs that an earlier run of the agent may not have sent, and directories that it kept.
  void AdoptEarlierRun(const std::vector<v1::AttemptStatus>& results);

  AgentOptions options_;
  security::PathPolicy paths_;
  UniqueFd lock_;
  SystemClock clock_;
  Poller poller_;
  Inbox inbox_;
  Journal journal_;
  v1::Inventory inventory_;
  LaunchOptions launch_;
  LogSpool spool_;
  std::unique_ptr<AgentMetrics> metrics_;
  AgentCore core_;
  ProcessTable processes_;
  SessionDriver session_;

  std::deque<Input> inputs_;
  bool feeding_ = false;
  Time next_poll_{};
  Time next_reap_{};
  std::map<GroupKey, Time> flushing_;     // gone, waiting for their logs until then
  std::map<AttemptKey, Time> forgotten_;  // their logs may still be sent until then
  std::deque<AttemptKey> kept_;  // forgotten attempts whose directory is still there, oldest first
  std::map<AttemptKey, std::string> traces_;  // of attempts that are not forgotten
  bool was_in_session_ = false;
  std::string told_status_;         // of systemd
  std::optional<Time> next_alive_;  // unset: systemd does not wait for it
  std::optional<Time> leave_by_;    // set by ShutdownComplete
  FileWorker file_worker_;          // last: its work uses what is above
};

}  // namespace switchyard::agent
