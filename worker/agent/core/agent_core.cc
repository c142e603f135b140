#include "worker/agent/core/agent_core.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/agent/core/names.h"

namespace switchyard::agent {

AgentCore::AgentCore(Options options, Recovered recovered, Time now)
    : options_(std::move(options)),
      now_(now),
      store_id_(std::move(recovered.store_id)),
      grant_until_(now + options_.execution_grant) {
  for (auto& result : recovered.results) {
    const AttemptKey key{result.job_uid(), result.epoch()};
    auto& job = ledger_.Touch(key.job_uid, now);
    job.newest = std::max(job.newest, key.epoch);
    job.over_through = std::max(job.over_through, key.epoch);
    attempts_.emplace(key, Attempt::FromJournal(std::move(result)));
  }
}

Outputs AgentCore::Step(const Input& input, Time now, Clock::WallTime wall) {
  now_ = now;
  wall_ = wall;
  Outputs out;
  std::visit([&](const auto& value) { Handle(value, out); }, input);
  RunTimers(out);
  StartWaiting(out);
  TellChanges(out);
  if (shutting_down_ && !shutdown_told_ &&
      std::all_of(attempts_.begin(), attempts_.end(),
                  [](const auto& item) { return item.second.ended(); })) {
    shutdown_told_ = true;
    out.push_back(ShutdownComplete{});
  }
  return out;
}

// ---- attempts
// -------------------------------------------------------------------------------------------

Attempt* AgentCore::Find(const AttemptKey& key) {
  const auto it = attempts_.find(key);
  return it == attempts_.end() ? nullptr : &it->second;
}

std::string AgentCore::JobName(const AttemptKey& key) const {
  const auto it = attempts_.find(key);
  return it == attempts_.end() ? "" : it->second.job();
}

Attempt* AgentCore::Admit(const AttemptKey& key, bool repeated_if_known, Outputs& out) {
  if (!IsSafeUid(key.job_uid) || key.epoch <= 0) {
    out.push_back(Note{true, "command.refused", key,
                       "job_uid must be 1 to 64 of [A-Za-z0-9_-] and epoch positive"});
    return nullptr;
  }
  Attempt* attempt = Find(key);
  if (attempt != nullptr && (repeated_if_known || attempt->ended() || attempt->stopping())) {
    SendStatus(attempt->status(), out);
    return nullptr;
  }
  auto& job = ledger_.Touch(key.job_uid, now_);
  if (ledger_.IsStale(key) && attempt == nullptr) {
    // Was here and is over, or was stopped before it came: say so, for a coordinator that missed
    // it. An epoch older than what runs gets no answer: whoever asks is not the one to obey.
    if (key.epoch == job.newest || key.epoch == job.over_through) job.owed_end = key.epoch;
    out.push_back(
        Note{true, "command.stale", key,
             absl::StrFormat("epoch %d is over; newest known is %d", key.epoch, job.newest)});
    return nullptr;
  }
  if (shutting_down_) {
    out.push_back(Note{true, "command.refused", key, "the agent is shutting down"});
    return nullptr;
  }
  job.newest = std::max(job.newest, key.epoch);
  StopThrough(key.job_uid, key.epoch - 1, absl::StrCat("superseded by epoch ", key.epoch), out);
  if (attempt == nullptr)
    attempt = &attempts_.emplace(key, Attempt(key, options_.graces)).first->second;
  return attempt;
}

void AgentCore::StopThrough(const std::string& job_uid, int64_t epoch, const std::string& reason,
                            Outputs& out) {
  auto& job = ledger_.Touch(job_uid, now_);
  job.over_through = std::max(job.over_through, epoch);
  job.newest = std::max(job.newest, epoch);
  for (auto& [key, attempt] : attempts_) {
    if (key.job_uid == job_uid && key.epoch <= epoch)
      attempt.Stop(reason, options_.graces.stop, now_, out);
  }
}

bool AgentCore::AnyLive(const std::string& job_uid, int64_t through_epoch) const {
  return std::any_of(attempts_.begin(), attempts_.end(), [&](const auto& item) {
    return item.first.job_uid == job_uid && item.first.epoch <= through_epoch &&
           !item.second.ended();
  });
}

std::string AgentCore::SlotProblem(const v1::StartRanks& request) const {
  if (request.ranks().empty()) return "StartRanks names no rank";
  std::set<int> slots;
  std::set<int> ranks;
  const auto& offered = options_.inventory.slots();
  for (const auto& local : request.ranks()) {
    const bool exists = std::any_of(offered.begin(), offered.end(),
                                    [&](const auto& s) { return s.index() == local.slot(); });
    if (!exists)
      return absl::StrFormat("slot %d does not exist: node %s has %d slots", local.slot(),
                             options_.node, offered.size());
    if (!slots.insert(local.slot()).second)
      return absl::StrFormat("slot %d is named twice", local.slot());
    if (local.rank() < 0 || !ranks.insert(local.rank()).second) {
      return absl::StrFormat("rank %d is negative or named twice", local.rank());
    }
  }
  return "";
}

bool AgentCore::SlotsFree(const Attempt& attempt) const {
  for (const int slot : attempt.slots()) {
    for (const auto& [key, other] : attempts_) {
      if (&other != &attempt && other.HoldsSlot(slot)) return false;
    }
  }
  return true;
}

void AgentCore::StartWaiting(Outputs& out) {
  for (auto& [key, attempt] : attempts_) {
    if (!attempt.waiting_to_start() || shutting_down_) continue;
    if (AnyLive(key.job_uid, key.epoch - 1) || !SlotsFree(attempt)) continue;
    attempt.StartRanks(out);
  }
}

// ---- events of processes and files
// ------------------------------------------------------------------------

void AgentCore::Handle(const ProcessStarted& input, Outputs& out) {
  if (Attempt* attempt = Find(input.key.attempt)) attempt->OnStarted(input, out);
}

void AgentCore::Handle(const ProcessStartFailed& input, Outputs& out) {
  if (Attempt* attempt = Find(input.key.attempt)) attempt->OnStartFailed(input, now_, wall_, out);
}

void AgentCore::Handle(const TrainerSaid& input, Outputs& out) {
  Attempt* attempt = Find(input.key.attempt);
  if (attempt == nullptr) return;
  attempt->OnLine(input);
  using Line = trainer::v1::TrainerLine;
  const auto kind = input.line.line_case();
  // A phase is part of the status; how far it is shows that the rank is alive.
  const bool progress = kind == Line::kPhase && input.line.phase().progress() > 0;
  if (kind != Line::kStep && kind != Line::kEval && kind != Line::kExpertLoad && !progress) return;
  if (!welcomed_) return;
  Say(out, [&](v1::ConnectRequest& message) {
    auto* report = message.mutable_rank_report();
    report->set_job_uid(input.key.attempt.job_uid);
    report->set_epoch(input.key.attempt.epoch);
    report->set_rank(input.key.rank);
    *report->mutable_line() = input.line;
  });
}

void AgentCore::Handle(const PreparationSaid& input, Outputs&) {
  if (Attempt* attempt = Find(input.key)) attempt->OnPreparationLine(input);
}

void AgentCore::Handle(const ProcessExited& input, Outputs& out) {
  if (Attempt* attempt = Find(input.key.attempt)) attempt->OnExited(input, now_, wall_, out);
}

void AgentCore::Handle(const GroupGone& input, Outputs&) {
  if (Attempt* attempt = Find(input.key.attempt)) attempt->OnGroupGone(input.key.phase);
}

void AgentCore::Handle(const ProbeDone& input, Outputs& out) {
  if (!welcomed_) return;  // the coordinator asks again
  Say(out, [&](v1::ConnectRequest& message) { *message.mutable_probe_result() = input.result; });
}

void AgentCore::Handle(const PublishDone& input, Outputs& out) {
  if (input.result.error().empty()) {
    if (Attempt* attempt = Find({input.result.job_uid(), input.result.epoch()})) {
      attempt->ForgetShards(input.result.final_path());
    }
  }
  if (!welcomed_) return;
  Say(out,
      [&](v1::ConnectRequest& message) { *message.mutable_checkpoint_published() = input.result; });
}

void AgentCore::Handle(const ShutdownRequested&, Outputs& out) {
  shutting_down_ = true;
  for (auto& [key, attempt] : attempts_) {
    attempt.Stop("the node's agent was told to end", options_.graces.stop, now_, out);
  }
}

// ---- commands
// ---------------------------------------------------------------------------------------------

void AgentCore::On(const v1::ProbePaths& request, Outputs& out) {
  if (request.epoch() < ledger_.newest(request.job_uid()))
    return;  // would disturb the newer attempt's nonce
  out.push_back(Probe{request});
}

void AgentCore::On(const v1::PrepareData& request, Outputs& out) {
  if (Attempt* attempt = Admit({request.job_uid(), request.epoch()}, true, out)) {
    attempt->StartPreparation(request, out);
  }
}

void AgentCore::On(const v1::StartRanks& request, Outputs& out) {
  const AttemptKey key{request.job_uid(), request.epoch()};
  const Attempt* known = Find(key);
  Attempt* attempt = Admit(key, known != nullptr && known->has_ranks(), out);
  if (attempt == nullptr) return;
  attempt->AcceptRanks(request);
  if (const std::string problem = SlotProblem(request); !problem.empty()) attempt->Reject(problem);
}

void AgentCore::On(const v1::StopAttempt& request, Outputs& out) {
  if (!IsSafeUid(request.job_uid())) return;
  StopThrough(request.job_uid(), request.epoch(),
              request.reason().empty() ? "the coordinator stopped it" : request.reason(), out);
  if (const Attempt* attempt = Find({request.job_uid(), request.epoch()})) {
    if (attempt->ended()) SendStatus(attempt->status(), out);
  } else {
    ledger_.Touch(request.job_uid(), now_).owed_end = request.epoch();
  }
}

void AgentCore::On(const v1::RelayLine& request, Outputs& out) {
  Attempt* attempt = Find({request.job_uid(), request.epoch()});
  if (attempt != nullptr && !attempt->ended()) attempt->Relay(request.line(), out);
}

void AgentCore::On(const v1::PublishCheckpoint& request, Outputs& out) {
  const int64_t newest = ledger_.newest(request.job_uid());
  if (request.epoch() >= newest) {
    out.push_back(Publish{request});
    return;
  }
  v1::CheckpointPublished refused;
  refused.set_job_uid(request.job_uid());
  refused.set_epoch(request.epoch());
  refused.set_step(request.step());
  refused.set_final_path(request.final_path());
  refused.set_error(absl::StrFormat("epoch %d may not publish: epoch %d has taken over",
                                    request.epoch(), newest));
  Say(out, [&](v1::ConnectRequest& message) { *message.mutable_checkpoint_published() = refused; });
}

void AgentCore::On(const v1::AttemptAck& ack, Outputs& out) {
  const AttemptKey key{ack.job_uid(), ack.epoch()};
  const Attempt* attempt = Find(key);
  if (attempt == nullptr || !attempt->ended()) return;
  auto& job = ledger_.Touch(key.job_uid, now_);
  job.over_through = std::max(job.over_through, key.epoch);
  attempts_.erase(key);
  out.push_back(ForgetAttempt{key});
}

}  // namespace switchyard::agent
