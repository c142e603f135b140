#include "worker/agent/host/agent_host.h"

#include <sys/epoll.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "common/log.h"
#include "worker/agent/host/lines.h"
#include "worker/agent/process/leftovers.h"

namespace switchyard::agent {
namespace {

// Logs may hold up the release of a slot for this long.
constexpr std::chrono::seconds kLogPatience{2};
constexpr std::chrono::seconds kReapInterval{30};

std::vector<std::string> GpuUuids(const v1::Inventory& inventory) {
  std::vector<std::string> uuids;
  for (const v1::Slot& slot : inventory.slots())
    if (!slot.uuid().empty()) uuids.push_back(slot.uuid());
  return uuids;
}

// For whoever reads that the coordinator cannot be reached.
const char* ConnectionAdvice(const AgentOptions& options) {
  return options.tls_dir.empty()
             ? "does a coordinator run there? one that serves TLS wants --tls-dir DIR, which "
               "`switchyard-coordinator issue-agent` makes"
             : "does a coordinator run there, with TLS, and is its certificate for this name and "
               "of the authority in --tls-dir?";
}

}  // namespace

AgentHost::AgentHost(const AgentOptions& options, Parts parts)
    : options_(options),
      paths_(std::move(parts.paths)),
      lock_(std::move(parts.lock)),
      journal_(std::move(parts.journal)),
      inventory_(parts.core.inventory),
      launch_{options.work_dir,         options.trainer,        options.python,
              options.prepare_data,     options.self,           options.fabric_interface,
              options.data_cache_bytes, inventory_.cpu_cores(), inventory_.slots_size(),
              GpuUuids(inventory_)},
      spool_(options.work_dir, options.log_cap_bytes),
      metrics_(std::move(parts.metrics)),
      core_(std::move(parts.core), std::move(parts.recovered), clock_.Steady()),
      processes_(
          poller_,
          {.on_line = [this](const ProcessKey& key, absl::string_view line) { OnLine(key, line); },
           .on_too_long_line = [this](const ProcessKey& key) { BadLine(key, "longer than 1 MiB"); },
           .on_output = [this](const ProcessKey& key,
                               absl::string_view bytes) { spool_.Append(key, bytes); },
           .on_exit = [this](const ProcessKey& key, int code,
                             int signal) { OnExit(key, code, signal); },
           .on_group_gone =
               [this](const GroupKey& key) { flushing_[key] = clock_.Steady() + kLogPatience; }}),
      session_(
          options.coordinator, std::move(parts.credentials), ConnectionAdvice(options), inbox_,
          spool_,
          {.on_opened = [this] { Feed(StreamOpened{}); },
           .on_message =
               [this](v1::ConnectResponse message) { Feed(FromCoordinator{std::move(message)}); },
           .on_closed = [this] { Feed(StreamClosed{}); }}) {
  poller_.Add(inbox_.fd(), EPOLLIN, [this](uint32_t) { inbox_.RunAll(); });
}

AgentHost::~AgentHost() { poller_.Remove(inbox_.fd()); }

void AgentHost::RequestShutdown() {
  inbox_.Post([this] { Feed(ShutdownRequested{}); });
}

void AgentHost::Run(ServiceNotifier& systemd) {
  systemd.Ready();
  if (systemd.alive_interval().count() > 0) next_alive_ = clock_.Steady();
  while (!leave_by_.has_value() ||
         (clock_.Steady() < *leave_by_ && core_.in_session() && !session_.Drained())) {
    Turn();
    TellSystemd(systemd, clock_.Steady());
    poller_.Wait(UntilNextTurn());
  }
}

void AgentHost::Turn() {
  const Time now = clock_.Steady();
  if (processes_.polling() && now >= next_poll_) {
    next_poll_ = now + ProcessTable::kPollInterval;
    processes_.Poll();
  }
  if (now >= next_reap_) {
    next_reap_ = now + kReapInterval;
    processes_.ReapStrays();
  }
  ReleaseFlushedGroups(now);
  CloseForgotten(now);
  if (const auto deadline = core_.NextDeadline(); deadline.has_value() && now >= *deadline)
    Feed(Tick{});
  session_.Turn(now, core_.in_session());
  if (was_in_session_ != core_.in_session()) {
    was_in_session_ = core_.in_session();
    if (!was_in_session_) metrics_->OnSessionLost();
    log::Info(was_in_session_ ? "session.opened" : "session.lost",
              {{"coordinator", options_.coordinator}});
  }
  metrics_->Update(core_.usage(), core_.in_session());
  metrics_->SetDroppedReports(session_.dropped_reports());
  metrics_->SetDroppedLogBytes(spool_.dropped_bytes());
}

void AgentHost::TellSystemd(ServiceNotifier& systemd, Time now) {
  if (next_alive_.has_value() && now >= *next_alive_) {
    systemd.Alive();
    next_alive_ = now + systemd.alive_interval();
  }
  const AgentCore::Usage usage = core_.usage();
  std::string status = absl::StrFormat("%s %s, %d of %d slots in use",
                                       core_.in_session() ? "connected to" : "no session with",
                                       options_.coordinator, usage.slots_used, usage.slots_total);
  if (leave_by_.has_value()) status = "stopping";
  if (status == told_status_) return;
  told_status_ = std::move(status);
  systemd.Status(told_status_);
}

std::optional<std::chrono::milliseconds> AgentHost::UntilNextTurn() const {
  std::optional<Time> next;
  const auto consider = [&](std::optional<Time> time) {
    if (time.has_value()) next = next.has_value() ? std::min(*next, *time) : *time;
  };
  consider(core_.NextDeadline());
  consider(session_.NextDial());
  consider(leave_by_);
  consider(next_alive_);
  if (processes_.polling()) consider(next_poll_);
  for (const auto& [key, until] : flushing_) consider(until);
  for (const auto& [key, until] : forgotten_) consider(until);
  if (!next.has_value()) return std::nullopt;
  // Rounded up: a turn just before its time would only spin.
  return std::chrono::ceil<std::chrono::milliseconds>(*next - clock_.Steady());
}

void AgentHost::Feed(Input input) {
  inputs_.push_back(std::move(input));
  if (feeding_) return;
  feeding_ = true;
  while (!inputs_.empty()) {
    const Input next = std::move(inputs_.front());
    inputs_.pop_front();
    Outputs outputs = core_.Step(next, clock_.Steady(), clock_.Wall());
    for (auto& output : outputs) std::visit([this](auto& value) { Do(value); }, output);
  }
  feeding_ = false;
}

void AgentHost::OnLine(const ProcessKey& key, absl::string_view line) {
  if (key.rank == kPreparationRank) {
    auto data = ParsePreparationLine(line);
    if (!data.ok()) return BadLine(key, std::string(data.status().message()));
    Feed(PreparationSaid{key.attempt, *std::move(data)});
    return;
  }
  auto parsed = ParseTrainerLine(line);
  if (!parsed.ok()) return BadLine(key, std::string(parsed.status().message()));
  if (parsed->has_step() && parsed->step().peak_memory_bytes() > 0) {
    metrics_->OnPeakMemory(core_.JobName(key.attempt), key.rank,
                           parsed->step().peak_memory_bytes());
  }
  Feed(TrainerSaid{key, *std::move(parsed)});
}

void AgentHost::BadLine(const ProcessKey& key, const std::string& why) {
  metrics_->OnBadLine();
  log::Warning("line.unreadable", {{"job_uid", key.attempt.job_uid},
                                   {"epoch", key.attempt.epoch},
                                   {"rank", key.rank},
                                   {"why", why}});
}

void AgentHost::OnExit(const ProcessKey& key, int exit_code, int signal) {
  const bool well = exit_code == 0 && signal == 0;
  log::Write(well ? log::Level::kInfo : log::Level::kWarning, "process.ended",
             {{"job_uid", key.attempt.job_uid},
              {"epoch", key.attempt.epoch},
              {"rank", key.rank},
              {"exit_code", exit_code},
              {"signal", signal},
              {"trace_id", TraceOf(key.attempt)}});
  if (key.rank != kPreparationRank) metrics_->OnRankEnded(well);
  Feed(ProcessExited{key, exit_code, signal, spool_.Tail(key)});
}

void AgentHost::ReleaseFlushedGroups(Time now) {
  std::vector<GroupKey> ready;
  for (const auto& [key, until] : flushing_) {
    if (!core_.in_session() || now >= until || spool_.Sent(key.attempt)) ready.push_back(key);
  }
  for (const GroupKey& key : ready) {
    flushing_.erase(key);
    if (key.phase == Phase::kRanks) {
      RemoveSharedMemory(key.attempt);
    } else {
      RemovePidFiles(options_.work_dir, key);
    }
    Feed(GroupGone{key});
  }
}

void AgentHost::CloseForgotten(Time now) {
  std::erase_if(forgotten_, [&](const auto& item) {
    if (now < item.second && !spool_.Stored(item.first)) return false;
    spool_.Close(item.first);
    return true;
  });
}

}  // namespace switchyard::agent
