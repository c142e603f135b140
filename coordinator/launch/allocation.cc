#include "coordinator/launch/allocation.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard::coordinator {
namespace {

using store::v1::JobRecord;

AttemptKey KeyOf(const JobRecord& record) { return {record.job().uid(), record.job().epoch()}; }

bool IsConnected(const CoreContext& core, const std::string& node) {
  const NodeEntry* entry = core.nodes.Find(node);
  return entry != nullptr && entry->connected();
}

bool IsOver(const JobRecord& record, const std::string& node) {
  return ResultOf(record.launch(), node) != nullptr || IsLost(record.launch(), node);
}

// Agents are gone or have forgotten the attempt, and none says on whose behalf.
bool IsUnexplained(const std::string& code) {
  return code == "AGENT_STOPPED" || code == "AGENT_RESTARTED" || code == "NODE_LOST" ||
         code == "PEER_LOST" || code == "KILLED";
}

// So long the cluster's reason is awaited undisturbed; then it is asked to end the allocation, and
// has until the second to do so before the attempt is closed without it.
constexpr std::chrono::seconds kUndisturbed{20}, kPatience{30};

// The wait for the reason is shorter than `limit`, or has not begun.
bool AwaitsFor(const CoreContext& core, const std::string& uid, std::chrono::seconds limit) {
  const Clock::SteadyTime since = core.book.live(uid).reason_awaited;
  return since == Clock::SteadyTime() || core.clock.Steady() - since < limit;
}

// The cluster may still say why the attempt's agents are gone; after an end at our own request it
// would say only that.
bool ReasonMayCome(const CoreContext& core, const JobRecord& record) {
  return record.job().state() == v1::JOB_STATE_RECOVERING && !record.launch().failed_here() &&
         IsUnexplained(record.launch().stop_reason().code()) &&
         AwaitsFor(core, record.job().uid(), kUndisturbed);
}

// The attempt is being ended and no agent is left that could say how: the cluster shall end it.
bool IsToBeEnded(const CoreContext& core, const JobRecord& record) {
  if (record.launch().stop() != store::v1::STOP_MODE_KILL || ReasonMayCome(core, record)) {
    return false;
  }
  const auto nodes = NodesOf(record);
  return std::none_of(nodes.begin(), nodes.end(), [&](const std::string& node) {
    return IsConnected(core, node) && !IsOver(record, node);
  });
}

}  // namespace

std::string AllocatedNodeName(const AttemptKey& attempt, int index) {
  return absl::StrFormat("%s-e%d-%d", attempt.first, attempt.second, index);
}

std::string AllocationName(const AttemptKey& attempt) {
  return absl::StrCat(attempt.first, "/", attempt.second);
}

std::vector<SchedulerSlot> OfferedSlots(const CoreContext& core) {
  size_t taken = 0;
  for (const auto& [uid, record] : core.book.jobs()) {
    if (record.has_launch()) taken += NodesOf(record).size();
  }
  std::set<std::string> nodes;
  std::vector<SchedulerSlot> slots;
  for (const PlannerSlot& slot : core.allocator->Offer()) {
    nodes.insert(slot.node);
    slots.push_back({slot.node, slot.index, slot.device, slot.memory_bytes, slot.memory_domain,
                     nodes.size() > taken});
  }
  return slots;
}

void NameAllocatedNodes(const AttemptKey& attempt, std::vector<Placement>& placements) {
  std::map<std::string, std::pair<int, int>> seen;  // node of the offer -> index, slots used
  for (Placement& placement : placements) {
    const auto it = seen.try_emplace(placement.node, static_cast<int>(seen.size()), 0).first;
    placement.node = AllocatedNodeName(attempt, it->second.first);
    placement.slot = it->second.second++;
  }
}

bool AwaitsAgent(const CoreContext& core, const JobRecord& record, const std::string& node) {
  return core.allocator != nullptr && record.launch().allocated() &&
         core.nodes.Find(node) == nullptr;
}

bool AllAgentsConnected(const CoreContext& core, const AttemptFacts& facts) {
  return std::all_of(facts.nodes.begin(), facts.nodes.end(),
                     [&](const std::string& node) { return IsConnected(core, node); });
}

std::optional<Failure> DriveAllocation(CoreContext& core, const std::string& uid,
                                       const AttemptFacts& facts) {
  const JobRecord& record = *core.book.Find(uid);
  if (core.allocator == nullptr || !record.launch().allocated() || facts.all_gone) {
    return std::nullopt;
  }
  const AllocationStatus status = core.allocator->Look(KeyOf(record));
  const bool forward = record.launch().stop() == store::v1::STOP_MODE_UNSPECIFIED;
  Failure failure;
  if (status.state == AllocationState::kEnded) {
    bool missed = false;
    for (const std::string& node : facts.nodes) {
      if (IsOver(record, node) || IsConnected(core, node)) continue;
      missed = true;
      // As asked when the attempt was being ended: no failure of its own.
      (*core.book.Edit(uid).mutable_launch()->mutable_lost_nodes())[node] =
          record.launch().stop() == store::v1::STOP_MODE_KILL ? "RELEASED" : "NODE_LOST";
    }
    if (!missed || !forward) return std::nullopt;
    failure.code = status.code;
    failure.message = status.detail;
    failure.step = facts.step;
    return failure;
  }
  if (!forward || AllAgentsConnected(core, facts)) return std::nullopt;
  LiveJob& live = core.book.live(uid);
  const auto now = core.clock.Steady();
  if (status.state != AllocationState::kRunning) {
    live.allocation_ran = {};
  } else if (live.allocation_ran == Clock::SteadyTime()) {
    live.allocation_ran = now;
  }
  if (live.allocation_ran != Clock::SteadyTime() &&
      now - live.allocation_ran > core.options.agents_timeout) {
    failure.code = "AGENTS_MISSING";
    failure.message = absl::StrFormat(
        "%s, but not every agent of it connected within %d s: look into its log, and whether its "
        "nodes reach the coordinator",
        status.detail,
        std::chrono::duration_cast<std::chrono::seconds>(core.options.agents_timeout).count());
    return failure;
  }
  if (record.job().state() == v1::JOB_STATE_RESERVED && !status.detail.empty() &&
      record.job().reason().message() != status.detail) {
    auto& reason = *core.book.Edit(uid).mutable_job()->mutable_reason();
    reason.set_code("WAITING_FOR_CLUSTER");
    reason.set_message(status.detail);
    core.book.AddEvent(record.job().name(), record.job().epoch(), "AllocationChanged",
                       v1::EVENT_SEVERITY_INFO, status.detail);
  }
  return std::nullopt;
}

bool AwaitsClusterReason(CoreContext& core, const std::string& uid, const AttemptFacts& facts) {
  const JobRecord& record = *core.book.Find(uid);
  if (core.allocator == nullptr || !record.launch().allocated() || record.launch().failed_here() ||
      record.job().state() != v1::JOB_STATE_RECOVERING) {
    return false;
  }
  // Agents that were told to end report no failure once the attempt is being stopped for it.
  const std::string root = facts.failures.empty() ? record.launch().stop_reason().code()
                                                  : RootFailure(facts.failures).code;
  if (!IsUnexplained(root)) return false;
  const AllocationStatus status = core.allocator->Look(KeyOf(record));
  if (status.state != AllocationState::kEnded) {
    LiveJob& live = core.book.live(uid);
    if (live.reason_awaited == Clock::SteadyTime()) live.reason_awaited = core.clock.Steady();
    return AwaitsFor(core, uid, kPatience);
  }
  if (status.code.empty() || status.code == "ALLOCATION_FAILED") return false;
  store::v1::Launch& launch = *core.book.Edit(uid).mutable_launch();
  launch.set_failed_here(true);
  launch.mutable_stop_reason()->set_code(status.code);
  launch.mutable_stop_reason()->set_message(status.detail);
  launch.set_failed_rank(-1);
  return true;
}

void ReleaseAgents(CoreContext& core, const JobRecord& record, const AttemptFacts& facts) {
  if (!record.launch().allocated()) return;
  agent::v1::ConnectResponse message;
  message.mutable_leave()->set_reason("the attempt is over");
  for (const std::string& node : facts.nodes) {
    const NodeEntry* entry = core.nodes.Find(node);
    if (entry != nullptr && entry->protocol >= kProtocolWithLeave) core.Send(node, message);
  }
}

std::vector<Allocation> WantedAllocations(const CoreContext& core) {
  std::vector<Allocation> wanted;
  for (const auto& [uid, record] : core.book.jobs()) {
    if (!record.has_launch() || !record.launch().allocated()) continue;
    Allocation& allocation = wanted.emplace_back();
    allocation.attempt = KeyOf(record);
    allocation.job = record.job().name();
    std::map<std::string, int> slots;
    for (const auto& placement : record.job().attempts().rbegin()->placements()) {
      const int used = ++slots[placement.node()];
      allocation.slots_per_node = std::max(allocation.slots_per_node, used);
    }
    allocation.nodes = static_cast<int>(slots.size());
    allocation.keep = !IsToBeEnded(core, record);
  }
  return wanted;
}

absl::Status CheckAllocation(const CoreContext& core, const agent::v1::Hello& hello) {
  if (hello.allocation().empty()) return absl::OkStatus();
  for (const auto& [uid, record] : core.book.jobs()) {
    if (!record.has_launch() || !record.launch().allocated() ||
        AllocationName(KeyOf(record)) != hello.allocation()) {
      continue;
    }
    const auto nodes = NodesOf(record);
    if (std::find(nodes.begin(), nodes.end(), hello.node()) != nodes.end()) return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrFormat("attempt %s, for which the agent of node \"%s\" was started, is over",
                      hello.allocation(), hello.node()));
}

}  // namespace switchyard::coordinator
