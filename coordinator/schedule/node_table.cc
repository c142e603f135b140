#include "coordinator/schedule/node_table.h"

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {
namespace {

constexpr std::chrono::seconds kOwnStall{2};

void SetInventory(const agent::v1::Hello& hello, v1::Node& node) {
  node.clear_slots();
  for (const agent::v1::Slot& slot : hello.inventory().slots()) {
    v1::Slot& copy = *node.add_slots();
    copy.set_index(slot.index());
    copy.set_device(slot.device());
    copy.set_product(slot.product());
    copy.set_uuid(slot.uuid());
    copy.set_memory_bytes(slot.memory_bytes());
  }
  node.set_memory_domain(hello.inventory().memory_domain());
  node.set_cpu_cores(hello.inventory().cpu_cores());
  node.set_memory_bytes(hello.inventory().memory_bytes());
  node.set_fabric_address(hello.inventory().fabric_address());
  node.set_agent_version(hello.version());
  node.set_boot_id(hello.boot_id());
}

}  // namespace

const NodeEntry* NodeTable::Find(const std::string& name) const {
  const auto it = nodes_.find(name);
  return it == nodes_.end() ? nullptr : &it->second;
}

NodeEntry* NodeTable::FindMutable(const std::string& name) {
  const auto it = nodes_.find(name);
  return it == nodes_.end() ? nullptr : &it->second;
}

void NodeTable::Restore(const v1::Node& node, Clock::SteadyTime now) {
  NodeEntry& entry = nodes_[node.name().substr(sizeof("nodes/") - 1)];
  entry.node = node;
  entry.node.set_state(v1::NODE_STATE_SUSPECT);
  entry.last_heard = now + options_.restart_grace - options_.lease;
}

bool NodeTable::IsTaken(const agent::v1::Hello& hello, Clock::SteadyTime now) const {
  const NodeEntry* entry = Find(hello.node());
  return entry != nullptr && entry->connected() && entry->incarnation != hello.incarnation() &&
         now - entry->last_heard < options_.suspect_after;
}

NodeEntry& NodeTable::Hello(const agent::v1::Hello& hello, uint64_t session,
                            Clock::SteadyTime now) {
  NodeEntry& entry = nodes_[hello.node()];
  entry.node.set_name(absl::StrCat("nodes/", hello.node()));
  SetInventory(hello, entry.node);
  entry.session = session;
  entry.incarnation = hello.incarnation();
  entry.allocated = !hello.allocation().empty();
  entry.last_heard = now;
  entry.attempts.clear();
  for (const auto& status : hello.attempts())
    entry.attempts[{status.job_uid(), status.epoch()}] = status;
  return entry;
}

void NodeTable::Heard(const std::string& name, uint64_t session, Clock::SteadyTime now) {
  NodeEntry* entry = FindMutable(name);
  if (entry != nullptr && entry->session == session) entry->last_heard = now;
}

void NodeTable::Report(const std::string& name, uint64_t session,
                       const agent::v1::AttemptStatus& status) {
  NodeEntry* entry = FindMutable(name);
  if (entry == nullptr || entry->session != session) return;
  auto& stored = entry->attempts[{status.job_uid(), status.epoch()}];
  // The end is final: a late message must not bring an attempt back.
  if (stored.state() != agent::v1::ATTEMPT_STATE_ENDED) stored = status;
}

void NodeTable::Disconnected(const std::string& name, uint64_t session) {
  NodeEntry* entry = FindMutable(name);
  if (entry != nullptr && entry->session == session) entry->session = 0;
}

void NodeTable::Forget(const std::string& name, const AttemptKey& attempt) {
  if (NodeEntry* entry = FindMutable(name)) entry->attempts.erase(attempt);
}

std::vector<std::string> NodeTable::Tick(Clock::SteadyTime now) {
  std::vector<std::string> changed;
  const auto stall = now - last_tick_;
  const bool stood_still = last_tick_ != Clock::SteadyTime() && stall > kOwnStall;
  last_tick_ = now;
  for (auto& [name, entry] : nodes_) {
    if (entry.node.state() == v1::NODE_STATE_LOST && !entry.connected()) continue;
    if (stood_still) entry.last_heard = std::min(now, entry.last_heard + stall);
    const auto silence = now - entry.last_heard;
    v1::NodeState state = v1::NODE_STATE_READY;
    if (silence >= options_.lease) {
      state = v1::NODE_STATE_LOST;
    } else if (!entry.connected() || silence >= options_.suspect_after) {
      state = v1::NODE_STATE_SUSPECT;
    }
    if (state == v1::NODE_STATE_LOST) entry.session = 0;
    if (state != entry.node.state()) {
      entry.node.set_state(state);
      changed.push_back(name);
    }
  }
  return changed;
}

}  // namespace switchyard::coordinator
