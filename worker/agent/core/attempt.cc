#include "worker/agent/core/attempt.h"

#include <algorithm>
#include <csignal>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/agent/core/exit_reason.h"

namespace switchyard::agent {
namespace {

// SIGKILL does not always end a process at once (it may wait for a device); it is sent again.
constexpr std::chrono::seconds kKillAgain{1};
// Older staged checkpoints are of no use once newer ones are complete.
constexpr int kShardStepsKept = 4;
constexpr int kUserErrorExitCode = 65;  // EX_DATAERR

void SetTime(Clock::WallTime wall, google::protobuf::Timestamp* stamp) {
  const auto since = wall.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
  stamp->set_seconds(seconds.count());
  stamp->set_nanos(static_cast<int32_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(since - seconds).count()));
}

void AddShard(const trainer::v1::CheckpointShard& shard, v1::AttemptStatus* status) {
  auto* shards = status->mutable_checkpoint_shards();
  for (auto& known : *shards) {
    if (known.rank() == shard.rank() && known.final_path() == shard.final_path()) {
      known = shard;
      return;
    }
  }
  *shards->Add() = shard;
  std::vector<int64_t> steps;
  for (const auto& known : *shards) steps.push_back(known.step());
  std::sort(steps.begin(), steps.end(), std::greater<>());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  if (steps.size() <= kShardStepsKept) return;
  const int64_t oldest = steps[kShardStepsKept - 1];
  shards->erase(std::remove_if(shards->begin(), shards->end(),
                               [&](const auto& s) { return s.step() < oldest; }),
                shards->end());
}

}  // namespace

Attempt::Attempt(AttemptKey key, Graces graces) : key_(std::move(key)), graces_(graces) {
  status_.set_job_uid(key_.job_uid);
  status_.set_epoch(key_.epoch);
  status_.set_state(v1::ATTEMPT_STATE_STARTING);
}

Attempt Attempt::FromJournal(v1::AttemptStatus result) {
  Attempt attempt({result.job_uid(), result.epoch()}, Graces{});
  attempt.status_ = std::move(result);
  attempt.status_.set_state(v1::ATTEMPT_STATE_ENDED);
  for (const auto& rank : attempt.status_.ranks()) {
    attempt.ranks_.push_back({rank.rank(), rank.slot(), Life::kExited});
  }
  attempt.changed_ = false;
  return attempt;
}

void Attempt::StartPreparation(const v1::PrepareData& request, Outputs& out) {
  preparation_group_.pending = 1;
  out.push_back(agent::StartPreparation{key_, request});
  Update();
}

void Attempt::AcceptRanks(const v1::StartRanks& request) {
  job_ = request.job();
  config_json_ = request.trainer_config_json();
  trace_id_ = request.trace_id();
  for (const auto& local : request.ranks()) {
    ranks_.push_back({local.rank(), local.slot(), Life::kWaiting});
    auto* status = status_.add_ranks();
    status->set_rank(local.rank());
    status->set_slot(local.slot());
  }
  Update();
}

void Attempt::StartRanks(Outputs& out) {
  for (auto& rank : ranks_) {
    rank.life = Life::kSpawning;
    ++rank_group_.pending;
    out.push_back(StartRank{{key_, rank.rank}, rank.slot, job_, config_json_, trace_id_});
  }
  Update();
}

void Attempt::Reject(const std::string& error) {
  stopping_ = true;
  status_.set_stop_reason(error);
  for (int i = 0; i < status_.ranks_size(); ++i) {
    auto* rank = status_.mutable_ranks(i);
    ranks_[i].life = Life::kExited;
    rank->set_exited(true);
    rank->mutable_exit()->set_code("SPAWN_FAILED");
    rank->mutable_exit()->set_message(error);
  }
  if (status_.ranks_size() > 0) status_.set_first_failed_rank(status_.ranks(0).rank());
  Update();
}

void Attempt::Relay(const trainer::v1::AgentLine& line, Outputs& out) {
  if (line.has_rendezvous()) {
    if (rendezvous_.has_rendezvous() && rendezvous_.rendezvous().id() == line.rendezvous().id())
      return;
    rendezvous_ = line;
  } else {
    request_ = line;
  }
  for (const auto& rank : ranks_) {
    if (rank.life == Life::kAlive) out.push_back(WriteLine{{key_, rank.rank}, line});
  }
}

void Attempt::Stop(const std::string& reason, std::chrono::milliseconds grace, Time now,
                   Outputs& out) {
  if (ended()) return;
  const Time kill_at = now + grace;
  if (stopping_) {
    if (!kill_sent_ && kill_at_.has_value()) kill_at_ = std::min(*kill_at_, kill_at);
    return;
  }
  stopping_ = true;
  changed_ = true;
  status_.set_stop_reason(reason);
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (ranks_[i].life != Life::kWaiting) continue;
    ranks_[i].life = Life::kExited;
    auto* rank = status_.mutable_ranks(static_cast<int>(i));
    rank->set_exited(true);
    rank->set_stopped_by_agent(true);
    rank->mutable_exit()->set_code("KILLED");
    rank->mutable_exit()->set_message("stopped before it was started");
  }
  kill_at_ = kill_at;
  Signal(StopSignal::kTerminate, out);
  Update();
}

void Attempt::ForgetShards(const std::string& final_path) {
  auto* shards = status_.mutable_checkpoint_shards();
  shards->erase(std::remove_if(shards->begin(), shards->end(),
                               [&](const auto& s) { return s.final_path() == final_path; }),
                shards->end());
}

void Attempt::OnStarted(const ProcessStarted& event, Outputs& out) {
  Group& in = group(event.key.group().phase);
  in.started = true;
  in.gone = false;
  if (event.key.rank != kPreparationRank) {
    v1::RankStatus* status = nullptr;
    Rank* rank = FindRank(event.key.rank, &status);
    if (rank == nullptr) return;
    rank->life = Life::kAlive;
    status->set_pid(event.pid);
    if (rendezvous_.has_rendezvous()) out.push_back(WriteLine{event.key, rendezvous_});
    if (request_.line_case() != trainer::v1::AgentLine::LINE_NOT_SET)
      out.push_back(WriteLine{event.key, request_});
  }
  // It was asked for before the stop and has missed the signal.
  if (stopping_) {
    out.push_back(
        SignalGroup{event.key.group(), kill_sent_ ? StopSignal::kKill : StopSignal::kTerminate});
  }
  Update();
}

void Attempt::OnStartFailed(const ProcessStartFailed& event, Time now, Clock::WallTime wall,
                            Outputs& out) {
  const Phase phase = event.key.group().phase;
  --group(phase).pending;
  if (phase == Phase::kPreparation) {
    status_.mutable_data()->set_error(event.error);
    preparation_group_.gone = true;
    stopping_ = true;
    status_.set_stop_reason(event.error);
  } else {
    v1::RankStatus* status = nullptr;
    Rank* rank = FindRank(event.key.rank, &status);
    if (rank == nullptr) return;
    rank->life = Life::kExited;
    status->set_exited(true);
    SetTime(wall, status->mutable_exit_time());
    status->mutable_exit()->set_code("SPAWN_FAILED");
    status->mutable_exit()->set_message(event.error);
    if (!stopping_) Fail(event.key.rank, event.error, now, out);
    SweepGroup(phase, now, out);
  }
  changed_ = true;
  Update();
}

void Attempt::OnLine(const TrainerSaid& event) {
  v1::RankStatus* status = nullptr;
  if (FindRank(event.key.rank, &status) == nullptr || status->exited()) return;
  const auto& line = event.line;
  switch (line.line_case()) {
    case trainer::v1::TrainerLine::kReady:
      status->set_ready(true);
      status->set_resumed_from_step(line.ready().resumed_from_step());
      status->set_step(std::max(status->step(), line.ready().resumed_from_step()));
      break;
    case trainer::v1::TrainerLine::kRendezvous:
      status_.set_rendezvous_id(line.rendezvous().id());
      break;
    case trainer::v1::TrainerLine::kPhase:
      if (status->phase() == line.phase().name()) return;
      status->set_phase(line.phase().name());
      break;
    case trainer::v1::TrainerLine::kCheckpointShard:
      AddShard(line.checkpoint_shard(), &status_);
      break;
    case trainer::v1::TrainerLine::kExit:
      *status->mutable_exit() = line.exit();
      return;  // told with the end
    case trainer::v1::TrainerLine::kStep:
      status->set_step(line.step().step());
      return;  // told by RankReport
    default:
      return;
  }
  changed_ = true;
  Update();
}

void Attempt::OnPreparationLine(const PreparationSaid& event) {
  if (event.data.ready() || !event.data.error().empty()) {
    data_result_ = event.data;
  } else {
    status_.mutable_data()->set_progress(event.data.progress());
    progress_changed_ = true;
  }
}

void Attempt::OnExited(const ProcessExited& event, Time now, Clock::WallTime wall, Outputs& out) {
  const Phase phase = event.key.group().phase;
  --group(phase).pending;
  if (phase == Phase::kPreparation) {
    PreparationExited(event);
  } else {
    RankExited(event, now, wall, out);
  }
  SweepGroup(phase, now, out);
  changed_ = true;
  Update();
}

void Attempt::PreparationExited(const ProcessExited& event) {
  auto* data = status_.mutable_data();
  if (event.exit_code == 0 && event.signal == 0 && data_result_.ready()) {
    *data = data_result_;
    data->set_progress(1);
    return;
  }
  if (stopping_) return;
  data->set_user_error(event.exit_code == kUserErrorExitCode || data_result_.user_error());
  data->set_error(data_result_.error());
  if (data->error().empty()) {
    data->set_error(
        absl::StrCat("data preparation ended with ", DescribeEnd(event),
                     event.log_tail.empty() ? "" : absl::StrCat(": ", event.log_tail.back())));
  }
  stopping_ = true;
  status_.set_stop_reason(data->error());
}

void Attempt::RankExited(const ProcessExited& event, Time now, Clock::WallTime wall, Outputs& out) {
  v1::RankStatus* status = nullptr;
  Rank* rank = FindRank(event.key.rank, &status);
  if (rank == nullptr) return;
  rank->life = Life::kExited;
  const bool well = EndedWell(event, status->exit());
  *status->mutable_exit() = ExplainExit(event, status->exit(), status->step());
  status->set_exited(true);
  status->set_exit_code(ShellCode(event));
  SetTime(wall, status->mutable_exit_time());
  if (well) return;

  // Of a cascade, the one that did not merely lose its peer or receive our signal is the cause.
  const bool by_signal =
      stopping_ && (event.signal == SIGTERM || (event.signal == SIGKILL && kill_sent_));
  const std::string& code = status->exit().code();
  const bool follows = by_signal || code == "PEER_LOST" || code == "STOPPED";
  v1::RankStatus* first = nullptr;
  if (status_.has_first_failed_rank()) FindRank(status_.first_failed_rank(), &first);
  const bool better =
      failed_ && first != nullptr && first->exit().code() == "PEER_LOST" && !follows;
  const std::string why =
      absl::StrCat("rank ", event.key.rank, " failed: ", status->exit().message());
  if (better) {
    status_.set_first_failed_rank(event.key.rank);
    status_.set_stop_reason(why);
  }
  status->set_stopped_by_agent(stopping_ && !better);
  if (!status->stopped_by_agent())
    status->mutable_log_tail()->Assign(event.log_tail.begin(), event.log_tail.end());
  if (!stopping_) Fail(event.key.rank, why, now, out);
}

void Attempt::Fail(int rank, const std::string& why, Time now, Outputs& out) {
  failed_ = true;
  status_.set_first_failed_rank(rank);
  Stop(why, graces_.failure, now, out);
}

void Attempt::SweepGroup(Phase phase, Time now, Outputs& out) {
  const Group& of = group(phase);
  if (of.pending > 0 || !of.started || of.gone) return;
  out.push_back(SignalGroup{{key_, phase}, StopSignal::kKill});
  kill_sent_ = true;
  kill_at_ = now + kKillAgain;
}

void Attempt::OnGroupGone(Phase phase) {
  group(phase).gone = true;
  if (!preparation_group_.active() && !rank_group_.active()) {
    kill_sent_ = false;
    kill_at_.reset();
  }
  changed_ = true;
  Update();
}

void Attempt::Advance(Time now, Outputs& out) {
  if (!kill_at_.has_value() || now < *kill_at_) return;
  kill_sent_ = true;
  kill_at_ = now + kKillAgain;
  Signal(StopSignal::kKill, out);
}

void Attempt::Signal(StopSignal signal, Outputs& out) {
  for (const Phase phase : {Phase::kPreparation, Phase::kRanks}) {
    if (group(phase).active()) out.push_back(SignalGroup{{key_, phase}, signal});
  }
}

bool Attempt::waiting_to_start() const {
  return !ended() && !stopping_ && !ranks_.empty() && ranks_.front().life == Life::kWaiting &&
         !preparation_group_.active();
}

bool Attempt::HoldsSlot(int slot) const {
  if (ended() || !rank_group_.active()) return false;
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [&](const Rank& rank) { return rank.slot == slot; });
}

std::vector<int> Attempt::slots() const {
  std::vector<int> slots;
  for (const auto& rank : ranks_) slots.push_back(rank.slot);
  return slots;
}

bool Attempt::AllRanksExited() const {
  return !ranks_.empty() && std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) {
    return rank.life == Life::kExited;
  });
}

Attempt::Rank* Attempt::FindRank(int rank, v1::RankStatus** status) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (ranks_[i].rank != rank) continue;
    *status = status_.mutable_ranks(static_cast<int>(i));
    return &ranks_[i];
  }
  return nullptr;
}

void Attempt::Update() {
  if (ended()) return;
  const auto before = status_.state();
  const bool active = preparation_group_.active() || rank_group_.active();
  if (!active && (stopping_ || AllRanksExited())) {
    status_.set_state(v1::ATTEMPT_STATE_ENDED);
    kill_at_.reset();
  } else if (stopping_ || AllRanksExited()) {
    status_.set_state(v1::ATTEMPT_STATE_STOPPING);
  } else if (preparation_group_.active()) {
    status_.set_state(v1::ATTEMPT_STATE_PREPARING);
  } else if (ranks_.empty()) {
    status_.set_state(v1::ATTEMPT_STATE_PREPARED);
  } else {
    const auto& ranks = status_.ranks();
    const bool ready =
        std::all_of(ranks.begin(), ranks.end(), [](const auto& rank) { return rank.ready(); });
    status_.set_state(ready ? v1::ATTEMPT_STATE_RUNNING : v1::ATTEMPT_STATE_STARTING);
  }
  changed_ = changed_ || status_.state() != before;
}

}  // namespace switchyard::agent
