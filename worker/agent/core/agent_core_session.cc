// AgentCore's session: Hello, Welcome, heartbeats, the execution grant, and what is told when.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "worker/agent/core/agent_core.h"

namespace switchyard::agent {
namespace {

std::chrono::milliseconds Or(int64_t ms, std::chrono::milliseconds otherwise) {
  return ms > 0 ? std::chrono::milliseconds(ms) : otherwise;
}

}  // namespace

void AgentCore::Handle(const StreamOpened&, Outputs& out) {
  open_ = true;
  welcomed_ = false;
  closing_ = false;
  opened_at_ = heard_at_ = now_;
  heartbeat_sequence_ = 0;
  SendHello(out);
}

void AgentCore::Handle(const StreamClosed&, Outputs&) {
  open_ = false;
  welcomed_ = false;
}

void AgentCore::SendHello(Outputs& out) {
  Say(out, [&](v1::ConnectRequest& message) {
    auto* hello = message.mutable_hello();
    hello->set_node(options_.node);
    hello->set_incarnation(options_.incarnation);
    hello->set_boot_id(options_.boot_id);
    hello->set_version(options_.version);
    hello->set_protocol_min(kOldestProtocol);
    hello->set_protocol_max(kNewestProtocol);
    hello->set_allocation(options_.allocation);
    *hello->mutable_inventory() = options_.inventory;
    for (const auto& [key, attempt] : attempts_) *hello->add_attempts() = attempt.status();
  });
}

void AgentCore::Handle(const FromCoordinator& input, Outputs& out) {
  if (!open_ || closing_) return;
  heard_at_ = now_;
  const auto& message = input.message;
  using Response = v1::ConnectResponse;
  if (message.message_case() == Response::kWelcome) return On(message.welcome(), out);
  if (!welcomed_) {
    closing_ = true;
    out.push_back(CloseStream{"the coordinator's first message was not Welcome"});
    return;
  }
  switch (message.message_case()) {
    case Response::kHeartbeatAck:
      grant_until_ = now_ + options_.execution_grant;
      break;
    case Response::kProbePaths:
      On(message.probe_paths(), out);
      break;
    case Response::kPrepareData:
      On(message.prepare_data(), out);
      break;
    case Response::kStartRanks:
      On(message.start_ranks(), out);
      break;
    case Response::kStopAttempt:
      On(message.stop_attempt(), out);
      break;
    case Response::kRelayLine:
      On(message.relay_line(), out);
      break;
    case Response::kPublishCheckpoint:
      On(message.publish_checkpoint(), out);
      break;
    case Response::kRemoveCheckpoint:
      out.push_back(Remove{message.remove_checkpoint()});
      break;
    case Response::kAttemptAck:
      On(message.attempt_ack(), out);
      break;
    case Response::kLogAck:
      out.push_back(LogsStored{message.log_ack()});
      break;
    case Response::kLeave:
      On(message.leave(), out);
      break;
    default:
      break;  // of a newer protocol
  }
}

void AgentCore::On(const v1::Welcome& welcome, Outputs& out) {
  if (welcome.protocol() < kOldestProtocol || welcome.protocol() > kNewestProtocol) {
    closing_ = true;
    out.push_back(CloseStream{
        absl::StrFormat("the coordinator speaks protocol %d, this agent %d to %d; upgrade the "
                        "older one, the coordinator first",
                        welcome.protocol(), kOldestProtocol, kNewestProtocol)});
    return;
  }
  options_.heartbeat_interval = Or(welcome.heartbeat_interval_ms(), options_.heartbeat_interval);
  options_.lease = Or(welcome.lease_ms(), options_.lease);
  options_.execution_grant = Or(welcome.execution_grant_ms(), options_.execution_grant);
  welcomed_ = true;
  next_heartbeat_ = now_;
  grant_until_ = now_ + options_.execution_grant;
  if (!welcome.store_id().empty() && welcome.store_id() != store_id_) {
    // Another store knows nothing of these jobs: results are of no use to it and nobody will stop
    // the rest.
    if (!store_id_.empty()) {
      for (auto it = attempts_.begin(); it != attempts_.end();) {
        if (it->second.ended()) {
          out.push_back(ForgetAttempt{it->first});
          it = attempts_.erase(it);
        } else {
          it->second.Stop("the coordinator's store was replaced", options_.graces.stop, now_, out);
          ++it;
        }
      }
      ledger_ = Ledger();
    }
    store_id_ = welcome.store_id();
    out.push_back(RememberStore{store_id_});
  }
  for (auto& [key, attempt] : attempts_) {
    if (attempt.ended())
      SendStatus(attempt.status(), out);  // the live ones are told by TellChanges
  }
  for (auto& [key, attempt] : attempts_) {
    if (!attempt.ended()) SendStatus(attempt.status(), out);
  }
}

void AgentCore::On(const v1::Leave& leave, Outputs& out) {
  if (options_.allocation.empty()) return;  // it serves other jobs too
  out.push_back(Note{false, "agent.leaving", {}, leave.reason()});
  left_ = true;
  Handle(ShutdownRequested{}, out);
}

void AgentCore::RunTimers(Outputs& out) {
  for (auto& [key, attempt] : attempts_) attempt.Advance(now_, out);
  if (open_ && !closing_ && now_ - heard_at_ >= options_.lease) {
    closing_ = true;
    out.push_back(CloseStream{absl::StrFormat("nothing was heard from the coordinator for %d ms",
                                              options_.lease.count())});
  }
  if (now_ >= grant_until_) {
    const auto seconds =
        std::chrono::duration_cast<std::chrono::seconds>(options_.execution_grant).count();
    const std::string reason = absl::StrFormat("no coordinator was reached for %d s", seconds);
    for (auto& [key, attempt] : attempts_)
      attempt.Stop(reason, options_.graces.abandoned, now_, out);
    // Nobody will come back for an agent of one attempt, and it holds a node of the cluster.
    if (!options_.allocation.empty()) shutting_down_ = true;
  }
  if (!welcomed_ || closing_ || now_ < next_heartbeat_) return;
  // After a pause of this process one heartbeat is due, not all that were missed.
  next_heartbeat_ = now_ + options_.heartbeat_interval;
  Say(out, [&](v1::ConnectRequest& message) {
    message.mutable_heartbeat()->set_sequence(++heartbeat_sequence_);
  });
  for (auto& [key, attempt] : attempts_) {
    if (attempt.TakeProgress()) SendStatus(attempt.status(), out);
  }
  ledger_.Prune(now_, [&](const std::string& job_uid) {
    const auto it = attempts_.lower_bound({job_uid, 0});
    return it != attempts_.end() && it->first.job_uid == job_uid;
  });
}

void AgentCore::TellChanges(Outputs& out) {
  for (auto& [key, attempt] : attempts_) {
    if (!attempt.TakeChanged()) continue;
    if (attempt.ended()) {
      auto& job = ledger_.Touch(key.job_uid, now_);
      job.over_through = std::max(job.over_through, key.epoch);
      out.push_back(JournalResult{attempt.status()});
    }
    SendStatus(attempt.status(), out);
  }
  for (auto& [job_uid, job] : ledger_.jobs()) {
    if (job.owed_end == 0 || AnyLive(job_uid, job.owed_end)) continue;
    v1::AttemptStatus ended;
    ended.set_job_uid(job_uid);
    ended.set_epoch(job.owed_end);
    ended.set_state(v1::ATTEMPT_STATE_ENDED);
    job.owed_end = 0;
    SendStatus(ended, out);
  }
}

void AgentCore::SendStatus(const v1::AttemptStatus& status, Outputs& out) {
  if (!welcomed_ || closing_) return;  // told by the next Hello
  Say(out, [&](v1::ConnectRequest& message) { *message.mutable_attempt_status() = status; });
}

std::optional<AgentCore::Time> AgentCore::NextDeadline() const {
  std::optional<Time> next;
  const auto consider = [&](Time time) { next = next.has_value() ? std::min(*next, time) : time; };
  for (const auto& [key, attempt] : attempts_) {
    if (attempt.deadline().has_value()) consider(*attempt.deadline());
    if (!attempt.ended() && !attempt.stopping()) consider(grant_until_);
  }
  if (!options_.allocation.empty() && !shutting_down_) consider(grant_until_);
  if (open_ && !closing_) consider(heard_at_ + options_.lease);
  if (welcomed_ && !closing_) consider(next_heartbeat_);
  return next;
}

AgentCore::Usage AgentCore::usage() const {
  Usage usage;
  usage.slots_total = options_.inventory.slots_size();
  for (const auto& slot : options_.inventory.slots()) {
    usage.slots_used += std::any_of(attempts_.begin(), attempts_.end(), [&](const auto& item) {
      return item.second.HoldsSlot(slot.index());
    });
  }
  for (const auto& [key, attempt] : attempts_)
    ++(attempt.ended() ? usage.results_unacknowledged : usage.attempts_live);
  return usage;
}

}  // namespace switchyard::agent
