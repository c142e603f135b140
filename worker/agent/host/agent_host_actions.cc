// AgentHost: doing what the core says.
#include <csignal>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/trace.h"
#include "worker/agent/files/checkpoint.h"
#include "worker/agent/files/path_guard.h"
#include "worker/agent/files/probe.h"
#include "worker/agent/host/agent_host.h"
#include "worker/agent/host/lines.h"
#include "worker/agent/process/leftovers.h"

namespace switchyard::agent {
namespace {

namespace fs = std::filesystem;
// Logs may be sent for this long after the attempt was acknowledged.
constexpr std::chrono::seconds kForgottenLogPatience{60};
// The last messages may take this long to leave.
constexpr std::chrono::seconds kLeavePatience{1};
constexpr std::chrono::seconds kNonceWait{3};
// Directories of forgotten attempts (logs, train.json) that are kept for people to look at.
constexpr size_t kKeptAttempts = 50;

}  // namespace

void AgentHost::Do(agent::Send& output) { session_.Send(std::move(output.message)); }

void AgentHost::Do(CloseStream& output) { session_.Close(output.reason); }

absl::Status AgentHost::WriteTrainerConfig(const StartRank& rank) {
  const std::string dir = AttemptDir(options_.work_dir, rank.key.attempt);
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return absl::InternalError(absl::StrCat("cannot create ", dir, ": ", error.message()));
  return ReplaceFile(absl::StrCat(dir, "/", kTrainerConfigFile), rank.config_json);
}

void AgentHost::Do(StartRank& output) {
  const auto slot =
      std::find_if(inventory_.slots().begin(), inventory_.slots().end(),
                   [&](const v1::Slot& candidate) { return candidate.index() == output.slot; });
  if (const auto allowed = CheckTrainerConfig(paths_, output.config_json); !allowed.ok()) {
    Feed(ProcessStartFailed{output.key, std::string(allowed.message())});
    return;
  }
  if (const auto written = WriteTrainerConfig(output); !written.ok()) {
    Feed(ProcessStartFailed{output.key, std::string(written.message())});
    return;
  }
  metrics_->OnRankStarted(output.job, output.key.attempt.epoch);
  SpawnRequest request = RankRequest(launch_, *slot, output.key);
  Trace(output.key.attempt, output.trace_id, request);
  Start(output.key, output.slot, std::move(request));
}

void AgentHost::Do(StartPreparation& output) {
  const ProcessKey key{output.key, kPreparationRank};
  if (const auto allowed = CheckPaths(paths_, output.request); !allowed.ok()) {
    Feed(ProcessStartFailed{key, std::string(allowed.message())});
    return;
  }
  std::error_code error;
  fs::create_directories(AttemptDir(options_.work_dir, output.key), error);
  if (!fs::exists(options_.prepare_data, error)) {
    Feed(ProcessStartFailed{
        key, absl::StrCat("the program that prepares data, ", options_.prepare_data,
                          ", does not exist; start the agent with --prepare-data PATH")});
    return;
  }
  SpawnRequest request = PreparationRequest(launch_, output.request);
  Trace(output.key, output.request.trace_id(), request);
  Start(key, 0, std::move(request));
}

void AgentHost::Trace(const AttemptKey& key, const std::string& trace_id, SpawnRequest& request) {
  if (trace_id.empty()) return;
  traces_[key] = trace_id;
  request.environment.push_back(absl::StrCat(kTraceparentVariable, "=", Traceparent(trace_id)));
}

std::string AgentHost::TraceOf(const AttemptKey& key) const {
  const auto found = traces_.find(key);
  return found == traces_.end() ? "" : found->second;
}

void AgentHost::Start(const ProcessKey& key, int slot, SpawnRequest request) {
  auto opened = spool_.Open(key);
  auto pid =
      opened.ok() ? processes_.Start(key, std::move(request)) : absl::StatusOr<pid_t>(opened);
  if (!pid.ok()) {
    log::Error("process.start_failed", {{"job_uid", key.attempt.job_uid},
                                        {"epoch", key.attempt.epoch},
                                        {"rank", key.rank},
                                        {"trace_id", TraceOf(key.attempt)},
                                        {"error", std::string(pid.status().message())}});
    Feed(ProcessStartFailed{key, std::string(pid.status().message())});
    return;
  }
  log::Info("process.started", {{"job_uid", key.attempt.job_uid},
                                {"epoch", key.attempt.epoch},
                                {"rank", key.rank},
                                {"slot", slot},
                                {"pid", *pid},
                                {"trace_id", TraceOf(key.attempt)}});
  if (const auto written = WritePidFile(options_.work_dir, key, slot, *pid); !written.ok()) {
    // The process runs and dies with this agent; only a descendant that outlives both would not be
    // found.
    log::Error("pid_file.unwritten", {{"error", std::string(written.message())}});
  }
  Feed(ProcessStarted{key, *pid});
}

void AgentHost::Do(SignalGroup& output) {
  processes_.Signal(output.key, output.signal == StopSignal::kKill ? SIGKILL : SIGTERM);
}

void AgentHost::Do(WriteLine& output) {
  processes_.Write(output.key, FormatAgentLine(output.line));
}

void AgentHost::Do(JournalResult& output) {
  const AttemptKey key{output.result.job_uid(), output.result.epoch()};
  if (const auto written = journal_.Write(output.result); !written.ok()) {
    // Told anyway; only an agent restart before the acknowledgement would lose it.
    log::Error("journal.unwritten",
               {{"job_uid", key.job_uid}, {"error", std::string(written.message())}});
  }
  for (const Phase phase : {Phase::kPreparation, Phase::kRanks})
    RemovePidFiles(options_.work_dir, {key, phase});
  log::Info("attempt.ended", {{"job_uid", key.job_uid},
                              {"epoch", key.epoch},
                              {"reason", output.result.stop_reason()},
                              {"trace_id", TraceOf(key)}});
  metrics_->ForgetJob(core_.JobName(key));
}

void AgentHost::Do(ForgetAttempt& output) {
  traces_.erase(output.key);
  journal_.Remove(output.key);
  forgotten_[output.key] = clock_.Steady() + kForgottenLogPatience;
  kept_.push_back(output.key);
  if (kept_.size() <= kKeptAttempts) return;
  const std::string dir = AttemptDir(options_.work_dir, kept_.front());
  kept_.pop_front();
  file_worker_.Do([dir] {
    std::error_code ignored;
    fs::remove_all(dir, ignored);
    fs::remove(fs::path(dir).parent_path(), ignored);  // only when it is empty
  });
}

void AgentHost::Do(RememberStore& output) {
  if (const auto written = journal_.SetStoreId(output.store_id); !written.ok()) {
    log::Error("journal.unwritten", {{"error", std::string(written.message())}});
  }
}

void AgentHost::Do(Probe& output) {
  file_worker_.Do([this, request = output.request] {
    v1::ProbeResult result;
    if (const auto allowed = CheckPaths(paths_, request); allowed.ok()) {
      result = ProbePathsOnDisk(request, options_.node, kNonceWait);
    } else {
      result.set_probe_id(request.probe_id());
      result.add_problems(std::string(allowed.message()));
    }
    inbox_.Post(
        [this, result = std::move(result)]() mutable { Feed(ProbeDone{std::move(result)}); });
  });
}

void AgentHost::Do(Publish& output) {
  file_worker_.Do([this, request = output.request] {
    const auto allowed = CheckPaths(paths_, request);
    auto result = PublishOnDisk(request, allowed);
    inbox_.Post(
        [this, result = std::move(result)]() mutable { Feed(PublishDone{std::move(result)}); });
  });
}

void AgentHost::Do(Remove& output) {
  file_worker_.Do([this, request = output.request] {
    auto removed = CheckPaths(paths_, request);
    if (removed.ok()) removed = RemoveCheckpointOnDisk(request);
    log::Write(removed.ok() ? log::Level::kInfo : log::Level::kError, "checkpoint.removed",
               {{"job_uid", request.job_uid()},
                {"path", request.path()},
                {"error", std::string(removed.message())}});
  });
}

void AgentHost::Do(LogsStored& output) { spool_.OnAck(output.ack); }

void AgentHost::Do(Note& output) {
  log::Write(output.warning ? log::Level::kWarning : log::Level::kInfo, output.event.c_str(),
             {{"job_uid", output.attempt.job_uid},
              {"epoch", output.attempt.epoch},
              {"what", output.text},
              {"trace_id", TraceOf(output.attempt)}});
}

void AgentHost::Do(ShutdownComplete&) { leave_by_ = clock_.Steady() + kLeavePatience; }

}  // namespace switchyard::agent
