// The part of Reconciler that hands out slots and removes processes that nobody wants.
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/units.h"
#include "coordinator/checkpoint/checkpoint_keeper.h"
#include "coordinator/job/job_state.h"
#include "coordinator/job/proto_time.h"
#include "coordinator/launch/allocation.h"
#include "coordinator/launch/launcher.h"
#include "coordinator/plan/placement.h"
#include "coordinator/reconcile/reconciler.h"

namespace switchyard::coordinator {
namespace {

using store::v1::JobRecord;

constexpr int kKeptAttempts = 100;
constexpr char kNotEnoughNodes[] = "NOT_ENOUGH_NODES";

std::vector<Placement> PreviousPlacements(const JobRecord& record) {
  std::vector<Placement> previous;
  if (record.job().attempts().empty()) return previous;
  for (const v1::RankPlacement& placement : record.job().attempts().rbegin()->placements()) {
    previous.push_back({placement.rank(), placement.node(), placement.slot()});
  }
  return previous;
}

std::set<std::string> AvoidedNodes(const JobRecord& record, const Clock& clock) {
  std::set<std::string> nodes;
  const double now = ToSeconds(ToTimestamp(clock.Wall()));
  for (const auto& [node, until] : record.avoided_nodes()) {
    if (ToSeconds(until) > now) nodes.insert(node);
  }
  return nodes;
}

// Whether a node that jobs may use is silent, or not back yet after the coordinator's restart.
bool AwaitsNode(const NodeTable& nodes) {
  return std::any_of(nodes.nodes().begin(), nodes.nodes().end(), [](const auto& item) {
    const v1::Node& node = item.second.node;
    return node.state() == v1::NODE_STATE_SUSPECT && !node.cordoned() && !node.draining();
  });
}

}  // namespace

std::vector<SchedulerSlot> SchedulerSlots(const CoreContext& core) {
  std::set<std::pair<std::string, int>> busy;
  for (const auto& [uid, record] : core.book.jobs()) {
    if (!record.has_launch()) continue;
    for (const Placement& placement : PreviousPlacements(record))
      busy.emplace(placement.node, placement.slot);
  }
  std::vector<SchedulerSlot> slots;
  for (const auto& [name, entry] : core.nodes.nodes()) {
    if (!entry.alive() || entry.node.cordoned() || entry.node.draining()) continue;
    const bool ready = entry.node.state() == v1::NODE_STATE_READY;
    for (const auto& [key, status] : entry.attempts) {
      if (status.state() == agent::v1::ATTEMPT_STATE_ENDED) continue;
      for (const auto& rank : status.ranks()) busy.emplace(name, rank.slot());
    }
    for (const v1::Slot& slot : entry.node.slots()) {
      slots.push_back({name, slot.index(), slot.device(), entry.SlotBytes(slot),
                       entry.node.memory_domain(), ready && busy.count({name, slot.index()}) == 0});
    }
  }
  return slots;
}

std::map<std::string, int64_t> MachineRoom(const CoreContext& core) {
  std::map<std::string, int64_t> room;
  for (const auto& [name, entry] : core.nodes.nodes()) {
    if (entry.machine_bytes > 0) room[entry.node.memory_domain()] = entry.machine_bytes;
  }
  for (const auto& [uid, record] : core.book.jobs()) {
    if (!record.has_launch() || record.job().plan().device() != "cpu") continue;
    for (const Placement& placement : PreviousPlacements(record)) {
      const NodeEntry* entry = core.nodes.Find(placement.node);
      if (entry == nullptr) continue;
      const auto it = room.find(entry->node.memory_domain());
      if (it != room.end()) it->second -= SlotBytesNeeded(record.job().plan());
    }
  }
  return room;
}

void Reconciler::StepQueue() {
  // One move a commit: what moved just now is stored first, the queue is looked at in the next
  // step.
  if (core_.book.dirty()) return;
  std::vector<QueuedJob> queued;
  const auto now = core_.clock.Steady();
  for (const auto& [uid, record] : core_.book.jobs()) {
    const v1::Job& job = record.job();
    if (job.state() != v1::JOB_STATE_QUEUED || job.desired_state() != v1::DESIRED_STATE_RUN)
      continue;
    QueuedJob& entry = queued.emplace_back();
    entry.uid = uid;
    entry.priority = job.spec().priority();
    entry.create_sequence = record.create_sequence();
    entry.backing_off = now < core_.book.live(uid).not_before || HasPendingRemoval(core_.book, uid);
    entry.ranks = job.plan().ranks();
    entry.device = job.plan().device();
    entry.slot_bytes = SlotBytesNeeded(job.plan());
    entry.expert_parallel = job.plan().expert_parallel();
    entry.previous = PreviousPlacements(record);
    entry.avoided = AvoidedNodes(record, core_.clock);
  }
  if (queued.empty()) return;
  const bool lent = core_.allocator != nullptr;
  ScheduleResult result =
      lent ? Schedule(std::move(queued), OfferedSlots(core_))
           : Schedule(std::move(queued), SchedulerSlots(core_), MachineRoom(core_));
  // Lent nodes are not shared: the next job is looked at when this one has taken its own.
  if (lent && result.admitted.size() > 1) result.admitted.resize(1);
  for (const Admission& admission : result.admitted) Reserve(admission);
  for (size_t i = 0; i < result.queue.size(); ++i) {
    LiveJob& live = core_.book.live(result.queue[i]);
    const int position = static_cast<int>(i) + 1;
    if (live.queue_position != position) {
      live.queue_position = position;
      live.changed = true;
    }
  }
  const std::set<std::string> impossible(result.impossible.begin(), result.impossible.end());
  for (const std::string& uid : result.queue) {
    if (!impossible.contains(uid)) TellItFits(uid);
  }
  // What a silent node will do is not known yet: soon it is ready or lost.
  if (!lent && AwaitsNode(core_.nodes)) return;
  for (const std::string& uid : result.impossible) Replan(uid);
}

void Reconciler::TellItFits(const std::string& uid) {
  const v1::Job& job = core_.book.Find(uid)->job();
  if (job.reason().code() != kNotEnoughNodes) return;
  *core_.book.Edit(uid).mutable_job()->mutable_reason() =
      MakeReason("WAITING_FOR_SLOTS",
                 absl::StrFormat("waits for %d %s slots", job.plan().ranks(), job.plan().device()));
}

void Reconciler::Reserve(const Admission& admission) {
  JobRecord& record = core_.book.Edit(admission.uid);
  v1::Job& job = *record.mutable_job();
  job.set_epoch(job.epoch() + 1);
  if (job.attempts_size() >= kKeptAttempts) job.mutable_attempts()->DeleteSubrange(0, 1);
  v1::Attempt& attempt = *job.add_attempts();
  attempt.set_epoch(job.epoch());
  *attempt.mutable_start_time() = ToTimestamp(core_.clock.Wall());
  attempt.set_failed_rank(-1);
  std::vector<Placement> placements = admission.placements;
  if (core_.allocator != nullptr) NameAllocatedNodes({admission.uid, job.epoch()}, placements);
  for (const Placement& placement : placements) {
    v1::RankPlacement& copy = *attempt.add_placements();
    copy.set_rank(placement.rank);
    copy.set_node(placement.node);
    copy.set_slot(placement.slot);
  }
  store::v1::Launch& launch = *record.mutable_launch();
  launch.Clear();
  launch.set_nonce(absl::StrCat(admission.uid, "-", job.epoch(), "-", core_.new_id()));
  launch.set_checkpoint_step_before(-1);
  launch.set_allocated(core_.allocator != nullptr);
  LiveJob& live = core_.book.live(admission.uid);
  if (const auto* newest = NewestUsable(core_.book, admission.uid)) {
    launch.set_resume_from(newest->checkpoint().path());
    launch.set_checkpoint_step_before(newest->checkpoint().step());
    attempt.set_resumed_from_step(newest->checkpoint().step());
  }
  // Steps after the checkpoint are trained again.
  if (live.progress.step() > attempt.resumed_from_step()) {
    live.progress.set_tokens(live.progress.tokens() * attempt.resumed_from_step() /
                             live.progress.step());
  }
  live.progress.set_step(attempt.resumed_from_step());
  live.epoch = job.epoch();
  live.sent.clear();
  live.probes.clear();
  live.start_sent = {};
  live.allocation_ran = {};
  live.reason_awaited = {};
  live.running_since = {};
  live.checkpoint_requested = false;
  live.silence = {};
  std::string message = absl::StrFormat("has %d slots", admission.placements.size());
  const std::set<std::string> avoided = AvoidedNodes(record, core_.clock);
  for (auto it = record.mutable_avoided_nodes()->begin();
       it != record.mutable_avoided_nodes()->end();) {
    it = avoided.contains(it->first) ? std::next(it) : record.mutable_avoided_nodes()->erase(it);
  }
  std::set<std::string> in_vain;
  for (const Placement& placement : admission.placements) {
    if (avoided.contains(placement.node)) in_vain.insert(placement.node);
  }
  if (!in_vain.empty()) {
    absl::StrAppend(&message, ", also on ", absl::StrJoin(in_vain, ", "),
                    " where an attempt failed: no others have room");
  }
  core_.book.Move(admission.uid, v1::JOB_STATE_RESERVED, MakeReason("RESERVED", message),
                  "AttemptReserved");
}

// The nodes that the plan was made for are not there any more. Where the user left the mesh open,
// another may do.
void Reconciler::Replan(const std::string& uid) {
  const JobRecord& record = *core_.book.Find(uid);
  Sent& looked = core_.book.live(uid).sent["replan"];
  const auto now = core_.clock.Steady();
  if (looked.time != Clock::SteadyTime() && now - looked.time < core_.options.resend) return;
  looked.time = now;
  if (record.job().spec().mesh().ranks() == 0) {
    const auto slots = core_.allocator != nullptr ? core_.allocator->Offer()
                                                  : PlannerSlots(core_.nodes, /*only_usable=*/true);
    std::optional<int64_t> sequences;
    if (!slots.empty()) {
      const auto plan = core_.planner.Plan(record.job().spec(), slots, sequences);
      const v1::Plan& old = record.job().plan();
      const bool other =
          plan.ok() && (plan->ranks() != old.ranks() || plan->device() != old.device() ||
                        plan->memory_bytes_per_rank() < old.memory_bytes_per_rank());
      if (other && plan->feasible()) {
        *core_.book.Edit(uid).mutable_job()->mutable_plan() = *plan;
        core_.book.AddEvent(record.job().name(), record.job().epoch(), "JobReplanned",
                            v1::EVENT_SEVERITY_INFO,
                            absl::StrFormat("now %d ranks with expert_parallel %d", plan->ranks(),
                                            plan->expert_parallel()));
        return;
      }
    }
  }
  if (record.job().reason().code() == kNotEnoughNodes) return;
  *core_.book.Edit(uid).mutable_job()->mutable_reason() = MakeReason(
      kNotEnoughNodes,
      absl::StrFormat(
          "needs %d %s slots%s with %s each; the nodes that are ready and not cordoned have fewer "
          "of them",
          record.job().plan().ranks(), record.job().plan().device(),
          record.job().plan().device() == "cpu"       ? " in one memory domain"
          : record.job().plan().expert_parallel() > 1 ? ", each expert-parallel group on one node,"
                                                      : "",
          FormatBytes(static_cast<double>(SlotBytesNeeded(record.job().plan())))),
      v1::FAILURE_DOMAIN_INFRASTRUCTURE);
}

void Reconciler::StopStrays() {
  for (const auto& [name, entry] : core_.nodes.nodes()) {
    if (!entry.connected()) continue;
    for (const auto& [key, status] : entry.attempts) {
      const auto& [uid, epoch] = key;
      const JobRecord* record = core_.book.Find(uid);
      const bool current =
          record != nullptr && record->has_launch() && record->job().epoch() == epoch;
      agent::v1::ConnectResponse message;
      if (status.state() == agent::v1::ATTEMPT_STATE_ENDED) {
        // Stored, or of no use any more.
        if (current && ResultOf(record->launch(), name) == nullptr &&
            !IsLost(record->launch(), name)) {
          continue;
        }
        message.mutable_attempt_ack()->set_job_uid(uid);
        message.mutable_attempt_ack()->set_epoch(epoch);
        core_.Send(name, message);
        continue;
      }
      if (current && !IsLost(record->launch(), name)) continue;
      message.mutable_stop_attempt()->set_job_uid(uid);
      message.mutable_stop_attempt()->set_epoch(epoch);
      message.mutable_stop_attempt()->set_reason("the attempt is over");
      Sent& sent = core_.stray_stops[absl::StrCat(name, "/", uid, "/", epoch)];
      const auto now = core_.clock.Steady();
      if (sent.session == entry.session && now - sent.time < core_.options.resend) continue;
      sent = {entry.session, now};
      core_.Send(name, message);
    }
  }
}

}  // namespace switchyard::coordinator
