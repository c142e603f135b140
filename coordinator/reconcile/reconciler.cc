#include "coordinator/reconcile/reconciler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/checkpoint/checkpoint_keeper.h"
#include "coordinator/job/job_state.h"
#include "coordinator/job/proto_time.h"
#include "coordinator/launch/allocation.h"
#include "coordinator/launch/launcher.h"
#include "coordinator/reconcile/hang_detector.h"

namespace switchyard::coordinator {
namespace {

using agent::v1::ConnectResponse;
using store::v1::JobRecord;
using store::v1::Launch;

bool WantsEnd(const v1::Job& job) {
  return job.desired_state() == v1::DESIRED_STATE_CANCEL ||
         job.desired_state() == v1::DESIRED_STATE_DELETE;
}

}  // namespace

v1::StateReason MakeReason(const std::string& code, const std::string& message,
                           v1::FailureDomain domain) {
  v1::StateReason reason;
  reason.set_code(code);
  reason.set_message(message);
  reason.set_domain(domain);
  return reason;
}

void Reconciler::Step() {
  std::vector<std::string> uids;
  for (const auto& [uid, record] : core_.book.jobs()) uids.push_back(uid);
  for (const std::string& uid : uids) StepJob(uid);
  StepQueue();
  StopStrays();
}

void Reconciler::StepJob(const std::string& uid) {
  const JobRecord& record = *core_.book.Find(uid);
  if (HoldsSlots(record.job().state())) {
    StepAttempt(uid);
  } else {
    StepIdle(uid);
    if (core_.book.Find(uid) != nullptr) DriveCheckpoints(core_, uid);
  }
}

void Reconciler::StepIdle(const std::string& uid) {
  const v1::Job& job = core_.book.Find(uid)->job();
  if (IsTerminal(job.state())) {
    if (job.desired_state() == v1::DESIRED_STATE_DELETE) core_.book.Remove(uid);
    return;
  }
  if (WantsEnd(job)) {
    core_.book.Move(uid, v1::JOB_STATE_CANCELLED,
                    MakeReason("CANCELLED", "cancelled before it had slots"), "JobCancelled");
  } else if (job.state() == v1::JOB_STATE_QUEUED &&
             job.desired_state() == v1::DESIRED_STATE_PAUSE) {
    core_.book.Move(uid, v1::JOB_STATE_PAUSED, MakeReason("PAUSED", "paused while it was queued"),
                    "JobPaused");
  } else if (job.state() == v1::JOB_STATE_PAUSED && job.desired_state() == v1::DESIRED_STATE_RUN) {
    core_.book.live(uid).not_before = core_.clock.Steady();
    core_.book.Move(uid, v1::JOB_STATE_QUEUED,
                    MakeReason("WAITING_FOR_SLOTS", "resumed, waits for slots"), "JobQueued");
  }
}

void Reconciler::StepAttempt(const std::string& uid) {
  AbsorbReports(uid);
  const JobRecord& record = *core_.book.Find(uid);
  const AttemptFacts facts = GatherFacts(record, core_.nodes);
  UpdateLive(uid, facts);
  if (record.job().state() != v1::JOB_STATE_CANCELLING) CommitCheckpoints(core_, uid, facts);
  DriveCheckpoints(core_, uid);
  if (Interrupt(uid)) return;
  if (auto failure = DriveAllocation(core_, uid, facts)) {
    return Fail(uid, *failure, /*found_here=*/true);
  }
  const v1::JobState state = record.job().state();
  if (facts.all_gone && AwaitsClusterReason(core_, uid, facts)) return;
  if (facts.all_gone) return FinishAttempt(uid, facts);
  switch (state) {
    case v1::JOB_STATE_RESERVED:
    case v1::JOB_STATE_LAUNCHING:
    case v1::JOB_STATE_RUNNING:
      if (!facts.failures.empty())
        return Fail(uid, RootFailure(facts.failures), /*found_here=*/false);
      break;
    default:
      return DriveStop(uid, facts);
  }
  if (state == v1::JOB_STATE_RESERVED) {
    if (record.launch().allocated() && !AllAgentsConnected(core_, facts)) return;
    core_.book.Move(uid, v1::JOB_STATE_LAUNCHING,
                    MakeReason("LAUNCHING", absl::StrFormat("starting %d ranks", facts.world)),
                    "AttemptLaunching");
  } else if (state == v1::JOB_STATE_LAUNCHING) {
    if (facts.ready == facts.world) {
      core_.book.Edit(uid).mutable_launch()->set_was_running(true);
      core_.book.live(uid).running_since = core_.clock.Steady();
      auto& attempt = *core_.book.Edit(uid).mutable_job()->mutable_attempts()->rbegin();
      attempt.set_resumed_from_step(facts.resumed_from_step);
      core_.book.Move(uid, v1::JOB_STATE_RUNNING,
                      MakeReason("RUNNING", absl::StrFormat("all %d ranks are ready", facts.world)),
                      "AttemptRunning");
    } else if (auto failure = DriveLaunch(core_, uid, facts)) {
      Fail(uid, *failure, /*found_here=*/true);
    }
  } else if (auto hang = LookForHang(core_, uid, facts)) {
    Fail(uid, *hang, /*found_here=*/true);
  } else {
    RequestCheckpoint(uid, facts);
  }
}

void Reconciler::AbsorbReports(const std::string& uid) {
  const JobRecord& record = *core_.book.Find(uid);
  const AttemptKey key{uid, record.job().epoch()};
  for (const std::string& name : NodesOf(record)) {
    if (ResultOf(record.launch(), name) != nullptr || IsLost(record.launch(), name)) continue;
    const NodeEntry* entry = core_.nodes.Find(name);
    const char* lost = nullptr;
    if (AwaitsAgent(core_, record, name)) {
      continue;
    } else if (entry == nullptr || !entry->alive()) {
      lost = "NODE_LOST";
    } else if (entry->connected()) {
      const auto report = entry->attempts.find(key);
      if (report != entry->attempts.end()) {
        if (report->second.state() != agent::v1::ATTEMPT_STATE_ENDED) continue;
        auto& result = *core_.book.Edit(uid).mutable_launch()->add_results();
        result.set_node(name);
        *result.mutable_status() = report->second;
        continue;
      }
      const auto& bound = record.launch().incarnations();
      const auto incarnation = bound.find(name);
      const bool restarted =
          incarnation != bound.end() && incarnation->second != entry->incarnation;
      if (restarted || record.launch().was_running()) lost = "AGENT_RESTARTED";
    }
    if (lost == nullptr) continue;
    (*core_.book.Edit(uid).mutable_launch()->mutable_lost_nodes())[name] = lost;
    core_.book.AddEvent(record.job().name(), record.job().epoch(), "NodeLostFromAttempt",
                        v1::EVENT_SEVERITY_WARNING, absl::StrCat(lost, ": ", name));
  }
}

void Reconciler::UpdateLive(const std::string& uid, const AttemptFacts& facts) {
  LiveJob& live = core_.book.live(uid);
  const v1::JobState state = core_.book.Find(uid)->job().state();
  const bool active = state == v1::JOB_STATE_LAUNCHING || state == v1::JOB_STATE_RUNNING ||
                      state == v1::JOB_STATE_PAUSING;
  const v1::JobPhase phase = active ? facts.phase : v1::JOB_PHASE_UNSPECIFIED;
  if (phase != live.phase) {
    live.phase = phase;
    live.changed = true;
  }
  if (facts.step > live.progress.step()) {
    live.progress.set_step(facts.step);
    live.changed = true;
  }
}

bool Reconciler::Interrupt(const std::string& uid) {
  const JobRecord& record = *core_.book.Find(uid);
  const v1::JobState state = record.job().state();
  const bool running = state == v1::JOB_STATE_RUNNING;
  const bool forward =
      running || state == v1::JOB_STATE_RESERVED || state == v1::JOB_STATE_LAUNCHING;
  const auto stop = [&](store::v1::StopMode mode, const v1::StateReason& reason) {
    Launch& launch = *core_.book.Edit(uid).mutable_launch();
    launch.set_stop(mode);
    *launch.mutable_stop_reason() = reason;
    launch.set_failed_here(false);
  };
  if (WantsEnd(record.job())) {
    if (state == v1::JOB_STATE_CANCELLING) return false;
    const auto reason = MakeReason("CANCELLED", "asked to stop; processes are being removed");
    stop(store::v1::STOP_MODE_KILL, reason);
    core_.book.Move(uid, v1::JOB_STATE_CANCELLING, reason, "JobCancelling");
    return true;
  }
  if (!forward) return false;
  const auto mode = running ? store::v1::STOP_MODE_SAVE : store::v1::STOP_MODE_KILL;
  if (record.job().desired_state() == v1::DESIRED_STATE_PAUSE) {
    const auto reason =
        MakeReason("PAUSING", running ? "saving before it pauses" : "stopping its launch");
    stop(mode, reason);
    core_.book.Move(uid, v1::JOB_STATE_PAUSING, reason, "JobPausing");
    return true;
  }
  for (const std::string& node : NodesOf(record)) {
    const NodeEntry* entry = core_.nodes.Find(node);
    if (entry == nullptr || !entry->node.draining()) continue;
    const auto reason =
        MakeReason("NODE_DRAINING", absl::StrCat("leaving node ", node, ", which is drained"),
                   v1::FAILURE_DOMAIN_SYSTEM);
    stop(mode, reason);
    core_.book.Move(uid, v1::JOB_STATE_RECOVERING, reason, "AttemptDraining");
    return true;
  }
  return false;
}

void Reconciler::Fail(const std::string& uid, const Failure& failure, bool found_here) {
  const JobRecord& record = *core_.book.Find(uid);
  v1::StateReason reason = MakeReason(failure.code, failure.message);
  for (const std::string& line : failure.evidence) reason.add_evidence(line);
  Launch& launch = *core_.book.Edit(uid).mutable_launch();
  launch.set_stop(store::v1::STOP_MODE_KILL);
  *launch.mutable_stop_reason() = reason;
  launch.set_failed_here(found_here);
  if (found_here) {
    launch.set_failed_node(failure.node);
    launch.set_failed_rank(failure.rank);
  }
  if (record.job().state() != v1::JOB_STATE_PAUSING &&
      record.job().state() != v1::JOB_STATE_RECOVERING) {
    core_.book.Move(uid, v1::JOB_STATE_RECOVERING, reason, "AttemptFailed",
                    v1::EVENT_SEVERITY_WARNING);
  }
}

void Reconciler::DriveStop(const std::string& uid, const AttemptFacts& facts) {
  const JobRecord& record = *core_.book.Find(uid);
  if (record.launch().stop() == store::v1::STOP_MODE_SAVE) {
    if (!facts.failures.empty()) {
      Fail(uid, RootFailure(facts.failures), /*found_here=*/false);
    } else if (auto hang = LookForHang(core_, uid, facts)) {
      Fail(uid, *hang, /*found_here=*/true);
    }
  }
  const bool save = record.launch().stop() == store::v1::STOP_MODE_SAVE;
  ConnectResponse message;
  if (save) {
    auto& relay = *message.mutable_relay_line();
    relay.set_job_uid(uid);
    relay.set_epoch(record.job().epoch());
    relay.mutable_line()->mutable_checkpoint_now()->set_then_stop(true);
  } else {
    message.mutable_stop_attempt()->set_job_uid(uid);
    message.mutable_stop_attempt()->set_epoch(record.job().epoch());
    message.mutable_stop_attempt()->set_reason(record.launch().stop_reason().message());
  }
  for (const std::string& node : facts.nodes) {
    if (ResultOf(record.launch(), node) != nullptr || IsLost(record.launch(), node)) continue;
    core_.SendOnce(core_.book.live(uid), save ? "save" : "stop", node,
                   save ? std::chrono::milliseconds(0) : core_.options.resend, message);
  }
}

void Reconciler::RequestCheckpoint(const std::string& uid, const AttemptFacts& facts) {
  LiveJob& live = core_.book.live(uid);
  if (!live.checkpoint_requested) return;
  live.checkpoint_requested = false;
  ConnectResponse message;
  message.mutable_relay_line()->set_job_uid(uid);
  message.mutable_relay_line()->set_epoch(core_.book.Find(uid)->job().epoch());
  message.mutable_relay_line()->mutable_line()->mutable_checkpoint_now();
  for (const std::string& node : facts.nodes) core_.Send(node, message);
}

void Reconciler::FinishAttempt(const std::string& uid, const AttemptFacts& facts) {
  const JobRecord& record = *core_.book.Find(uid);
  const v1::JobState state = record.job().state();
  if (state == v1::JOB_STATE_CANCELLING) {
    const auto reason = MakeReason("CANCELLED", "stopped; no process is left");
    CloseAttempt(uid, facts, reason, nullptr);
    core_.book.Move(uid, v1::JOB_STATE_CANCELLED, reason, "JobCancelled");
    return;
  }
  if (HasUnpublished(core_.book, uid)) return;  // the keeper is at it
  if (const auto* final = FinalOf(core_.book, uid, record.job().epoch())) {
    if (state == v1::JOB_STATE_RESERVED || state == v1::JOB_STATE_LAUNCHING) {
      // Faster than our looks at it; the table knows no short cut.
      core_.book.Edit(uid).mutable_launch()->set_was_running(true);
      if (state == v1::JOB_STATE_LAUNCHING) {
        core_.book.Move(uid, v1::JOB_STATE_RUNNING, MakeReason("RUNNING", "all ranks were ready"),
                        "AttemptRunning");
      }
      return;
    }
    const auto reason =
        MakeReason("SUCCEEDED", absl::StrCat("the model is in ", final->checkpoint().path()));
    core_.book.Edit(uid).mutable_job()->set_output_model(final->checkpoint().path());
    auto& progress = core_.book.live(uid).progress;
    progress.set_step(std::max(progress.step(), final->checkpoint().step()));
    progress.clear_eta();
    CloseAttempt(uid, facts, reason, nullptr);
    core_.book.Move(uid, v1::JOB_STATE_SUCCEEDED, reason, "JobSucceeded");
    return;
  }
  if (!facts.failures.empty()) {
    if (state == v1::JOB_STATE_RECOVERING || state == v1::JOB_STATE_PAUSING) {
      DecideAfterFailure(uid, facts);
    } else {
      Fail(uid, RootFailure(facts.failures), /*found_here=*/false);
    }
    return;
  }
  if (state == v1::JOB_STATE_PAUSING) {
    const auto* newest = NewestUsable(core_.book, uid);
    const auto reason = MakeReason(
        "PAUSED",
        newest == nullptr
            ? std::string("paused before its first checkpoint; starts from the model again")
            : absl::StrFormat("paused; goes on after step %d", newest->checkpoint().step()));
    CloseAttempt(uid, facts, reason, nullptr);
    core_.book.Move(uid, v1::JOB_STATE_PAUSED, reason, "JobPaused");
  } else if (state == v1::JOB_STATE_RECOVERING) {
    const v1::StateReason reason = record.launch().stop_reason();
    CloseAttempt(uid, facts, reason, nullptr);
    core_.book.live(uid).not_before = core_.clock.Steady();
    core_.book.Move(uid, v1::JOB_STATE_QUEUED, reason, "JobQueued");
  } else {
    Failure failure;
    failure.code = "INTERNAL";
    failure.message = "every rank ended, but none reported the result";
    for (const auto& [name, checkpoint] : core_.book.checkpoints(uid)) {
      if (!checkpoint.checkpoint().final() ||
          checkpoint.checkpoint().epoch() != record.job().epoch())
        continue;
      failure.code = "OUTPUT";
      failure.message =
          absl::StrCat(checkpoint.checkpoint().path(),
                       " could not be put in place, see the events: free the name and retry");
    }
    failure.step = facts.step;
    Fail(uid, failure, /*found_here=*/true);
  }
}

void Reconciler::DecideAfterFailure(const std::string& uid, const AttemptFacts& facts) {
  const JobRecord& record = *core_.book.Find(uid);
  const Failure failure = RootFailure(facts.failures);
  AttemptHistory history;
  history.checkpoint_step_before = record.launch().checkpoint_step_before();
  if (const auto* newest = NewestUsable(core_.book, uid)) {
    history.checkpoint_step_after = newest->checkpoint().step();
  }
  LiveJob& live = core_.book.live(uid);
  if (record.launch().was_running() && live.running_since != Clock::SteadyTime()) {
    history.healthy_seconds =
        std::chrono::duration<double>(core_.clock.Steady() - live.running_since).count();
  }
  history.resumed_from_checkpoint = !record.launch().resume_from().empty();
  if (record.job().spec().restart().has_max_attempts()) {
    history.max_attempts = record.job().spec().restart().max_attempts();
  }
  const RestartDecision decision = DecideRestart(failure, history, record.restarts());
  const bool pausing = record.job().state() == v1::JOB_STATE_PAUSING;
  if (decision.mark_checkpoint_corrupt) MarkCorrupt(core_, uid, record.launch().resume_from());
  *core_.book.Edit(uid).mutable_restarts() = decision.ledger;
  if (decision.avoid_node) AvoidNode(uid, failure);
  CloseAttempt(uid, facts, decision.reason, &failure);
  live.not_before = core_.clock.Steady() + std::chrono::milliseconds(decision.ledger.backoff_ms());
  if (pausing || (decision.restart && record.job().desired_state() == v1::DESIRED_STATE_PAUSE)) {
    core_.book.Move(
        uid, v1::JOB_STATE_PAUSED,
        MakeReason("PAUSED", absl::StrCat("paused; its last attempt failed: ", failure.message)),
        "JobPaused", v1::EVENT_SEVERITY_WARNING);
  } else if (decision.restart) {
    core_.book.Move(uid, v1::JOB_STATE_QUEUED, decision.reason, "JobRestarting",
                    v1::EVENT_SEVERITY_WARNING);
  } else {
    core_.book.Move(uid, v1::JOB_STATE_FAILED, decision.reason, "JobFailed",
                    v1::EVENT_SEVERITY_ERROR);
  }
}

void Reconciler::AvoidNode(const std::string& uid, const Failure& failure) {
  const auto now = core_.clock.Wall();
  const auto until = ToTimestamp(now + core_.options.avoid_node);
  JobRecord& record = core_.book.Edit(uid);
  (*record.mutable_avoided_nodes())[failure.node] = until;
  if (core_.nodes.nodes().size() < 2) return;
  core_.book.AddEvent(
      record.job().name(), record.job().epoch(), "NodeAvoided", v1::EVENT_SEVERITY_INFO,
      absl::StrFormat(
          "for %d min attempts go elsewhere than node %s where there is room: %s",
          std::chrono::duration_cast<std::chrono::minutes>(core_.options.avoid_node).count(),
          failure.node, failure.code));
}

void Reconciler::CloseAttempt(const std::string& uid, const AttemptFacts& facts,
                              const v1::StateReason& outcome, const Failure* failure) {
  JobRecord& record = core_.book.Edit(uid);
  v1::Attempt& attempt = *record.mutable_job()->mutable_attempts()->rbegin();
  *attempt.mutable_end_time() = ToTimestamp(core_.clock.Wall());
  *attempt.mutable_outcome() = outcome;
  attempt.set_last_step(facts.step);
  attempt.set_failed_rank(failure == nullptr ? -1 : failure->rank);
  if (failure != nullptr) attempt.set_exit_code(failure->exit_code);
  ReleaseAgents(core_, record, facts);
  record.clear_launch();
  core_.book.live(uid).sent.clear();
}

}  // namespace switchyard::coordinator
