#include "coordinator/schedule/node_table.h"

#include <algorithm>

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

// What a cluster has lent is that attempt's alone.
bool SharesMemory(const NodeEntry& entry) {
  return entry.alive() && !entry.allocated && !entry.node.memory_domain().empty();
}

}  // namespace

int64_t NodeEntry::SlotBytes(const v1::Slot& slot) const {
  if (slot.device() != "cpu") return slot.memory_bytes();
  return static_cast<int64_t>(static_cast<double>(slot.memory_bytes()) * memory_share);
}

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
  ShareMemory();
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
  ShareMemory();
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

void NodeTable::Remove(const std::string& name) {
  nodes_.erase(name);
  ShareMemory();
}

// The largest offer is what the machine has: the others were made when ranks were running already.
void NodeTable::ShareMemory() {
  struct Machine {
    int64_t offered = 0, bytes = 0;
  };
  std::map<std::string, Machine> machines;  // by memory domain
  for (const auto& [name, entry] : nodes_) {
    if (!SharesMemory(entry)) continue;
    int64_t offer = 0;
    for (const v1::Slot& slot : entry.node.slots())
      offer += slot.device() == "cpu" ? slot.memory_bytes() : 0;
    Machine& machine = machines[entry.node.memory_domain()];
    machine.offered += offer;
    machine.bytes = std::max(machine.bytes, offer);
  }
  for (auto& [name, entry] : nodes_) {
    const Machine machine = SharesMemory(entry) ? machines[entry.node.memory_domain()] : Machine();
    entry.machine_bytes = machine.bytes;
    entry.memory_share = machine.offered > 0 ? static_cast<double>(machine.bytes) /
                                                   static_cast<double>(machine.offered)
                                             : 1;
  }
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
  if (!changed.empty()) ShareMemory();
  return changed;
}

}  // namespace switchyard::coordinator
