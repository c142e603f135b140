#include "coordinator/schedule/scheduler.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "coordinator/plan/placement.h"

namespace switchyard::coordinator {
namespace {

using SlotRefs = std::vector<SchedulerSlot*>;
using Room = std::map<std::string, int64_t>;

bool Fits(const QueuedJob& job, const SchedulerSlot& slot) {
  return slot.device == job.device &&
         (slot.memory_bytes == 0 || slot.memory_bytes >= job.slot_bytes);
}

// Slots that may hold ranks of one job together: for CPU one group a memory domain, else one group
// in all.
std::map<std::string, SlotRefs> Groups(const QueuedJob& job, std::vector<SchedulerSlot>& slots,
                                       bool only_free) {
  std::map<std::string, SlotRefs> groups;
  for (SchedulerSlot& slot : slots) {
    if (!Fits(job, slot) || (only_free && !slot.free)) continue;
    groups[job.device == "cpu" ? slot.memory_domain : ""].push_back(&slot);
  }
  return groups;
}

int PreviousIn(const QueuedJob& job, const SlotRefs& group) {
  int count = 0;
  for (const SchedulerSlot* slot : group) {
    for (const Placement& placement : job.previous) {
      count += placement.node == slot->node && placement.slot == slot->index;
    }
  }
  return count;
}

// Picks `job.ranks` of the group's slots: those of the last attempt first, the others on as few
// nodes as possible (the fullest node that still suffices, else the emptiest first).
SlotRefs Pick(const QueuedJob& job, const SlotRefs& group) {
  SlotRefs picked;
  std::map<std::string, SlotRefs> by_node;
  for (SchedulerSlot* slot : group) {
    const bool previous = std::any_of(job.previous.begin(), job.previous.end(), [&](const auto& p) {
      return p.node == slot->node && p.slot == slot->index;
    });
    if (previous && picked.size() < static_cast<size_t>(job.ranks)) {
      picked.push_back(slot);
    } else {
      by_node[slot->node].push_back(slot);
    }
  }
  while (picked.size() < static_cast<size_t>(job.ranks)) {
    const size_t missing = job.ranks - picked.size();
    auto best = by_node.end();
    for (auto it = by_node.begin(); it != by_node.end(); ++it) {
      if (best == by_node.end()) {
        best = it;
        continue;
      }
      const size_t size = it->second.size(), best_size = best->second.size();
      const bool enough = size >= missing, best_enough = best_size >= missing;
      if (enough != best_enough ? enough : (enough ? size < best_size : size > best_size))
        best = it;
    }
    const size_t take = std::min(missing, best->second.size());
    picked.insert(picked.end(), best->second.begin(), best->second.begin() + take);
    by_node.erase(best);
  }
  return picked;
}

// Ranks keep their slot where they had one; the rest is dealt node by node, so that neighbours in
// rank order (an expert-parallel group) are neighbours on the machine.
std::vector<Placement> Assign(const QueuedJob& job, SlotRefs picked) {
  std::sort(picked.begin(), picked.end(), [](const SchedulerSlot* a, const SchedulerSlot* b) {
    return std::tie(a->node, a->index) < std::tie(b->node, b->index);
  });
  std::vector<Placement> result(job.ranks);
  std::set<int> open;
  for (int rank = 0; rank < job.ranks; ++rank) open.insert(rank);
  SlotRefs rest;
  for (SchedulerSlot* slot : picked) {
    const auto same = std::find_if(job.previous.begin(), job.previous.end(), [&](const auto& p) {
      return p.node == slot->node && p.slot == slot->index && open.count(p.rank) > 0;
    });
    if (same == job.previous.end()) {
      rest.push_back(slot);
    } else {
      result[same->rank] = {same->rank, slot->node, slot->index};
      open.erase(same->rank);
    }
  }
  for (SchedulerSlot* slot : rest) {
    const int rank = *open.begin();
    open.erase(open.begin());
    result[rank] = {rank, slot->node, slot->index};
  }
  return result;
}

// Whether no expert-parallel group may span nodes.
bool GroupsStayOnNodes(const QueuedJob& job) {
  return job.device != "cpu" && job.expert_parallel > 1;
}

// The slots that the planner's rule gives, in rank order.
std::optional<SlotRefs> PlaceGroups(const QueuedJob& job, std::vector<SchedulerSlot>& slots,
                                    bool only_free) {
  std::vector<PlannerSlot> usable;
  std::map<std::pair<std::string, int>, SchedulerSlot*> by_name;
  for (SchedulerSlot& slot : slots) {
    if (!Fits(job, slot) || (only_free && !slot.free)) continue;
    PlannerSlot& copy = usable.emplace_back();
    copy.node = slot.node;
    copy.index = slot.index;
    copy.device = slot.device;
    by_name[{slot.node, slot.index}] = &slot;
  }
  const auto placed = PlaceRanks(usable, job.device, job.ranks, job.expert_parallel,
                                 /*min_bytes=*/0);  // Fits has looked at memory
  if (!placed) return std::nullopt;
  SlotRefs result;
  for (const PlannerSlot& slot : *placed) result.push_back(by_name.at({slot.node, slot.index}));
  return result;
}

// The slots of the last attempt in rank order, when all of them are free again.
std::optional<SlotRefs> PlaceAsBefore(const QueuedJob& job, std::vector<SchedulerSlot>& slots) {
  SlotRefs result(job.ranks, nullptr);
  for (const Placement& placement : job.previous) {
    for (SchedulerSlot& slot : slots) {
      if (slot.node == placement.node && slot.index == placement.slot && slot.free &&
          Fits(job, slot) && placement.rank >= 0 && placement.rank < job.ranks) {
        result[placement.rank] = &slot;
      }
    }
  }
  if (std::find(result.begin(), result.end(), nullptr) != result.end()) return std::nullopt;
  return result;
}

std::vector<Placement> InRankOrder(const SlotRefs& picked) {
  std::vector<Placement> result;
  for (const SchedulerSlot* slot : picked) {
    result.push_back({static_cast<int>(result.size()), slot->node, slot->index});
  }
  return result;
}

bool HasRoom(const QueuedJob& job, const std::string& domain, const Room& room) {
  const auto it = room.find(domain);
  return it == room.end() || it->second >= job.ranks * job.slot_bytes;
}

std::optional<SlotRefs> Place(const QueuedJob& job, std::vector<SchedulerSlot>& slots,
                              const Room& room) {
  if (GroupsStayOnNodes(job)) {
    if (auto before = PlaceAsBefore(job, slots)) return before;
    return PlaceGroups(job, slots, /*only_free=*/true);
  }
  const SlotRefs* best = nullptr;
  const auto groups = Groups(job, slots, /*only_free=*/true);
  for (const auto& [domain, group] : groups) {
    if (group.size() < static_cast<size_t>(job.ranks) || !HasRoom(job, domain, room)) continue;
    if (best == nullptr || std::pair(-PreviousIn(job, group), group.size()) <
                               std::pair(-PreviousIn(job, *best), best->size())) {
      best = &group;
    }
  }
  if (best == nullptr) return std::nullopt;
  return Pick(job, *best);
}

std::optional<SlotRefs> PlaceElsewhereFirst(const QueuedJob& job, std::vector<SchedulerSlot>& slots,
                                            const Room& room) {
  if (!job.avoided.empty()) {
    std::vector<SchedulerSlot*> closed;
    for (SchedulerSlot& slot : slots) {
      if (slot.free && job.avoided.contains(slot.node)) closed.push_back(&slot);
    }
    for (SchedulerSlot* slot : closed) slot->free = false;
    auto picked = Place(job, slots, room);
    for (SchedulerSlot* slot : closed) slot->free = true;
    if (picked) return picked;
  }
  return Place(job, slots, room);
}

bool FitsOnEmptyNodes(const QueuedJob& job, std::vector<SchedulerSlot>& slots) {
  if (GroupsStayOnNodes(job)) return PlaceGroups(job, slots, /*only_free=*/false).has_value();
  for (const auto& [domain, group] : Groups(job, slots, /*only_free=*/false)) {
    if (group.size() >= static_cast<size_t>(job.ranks)) return true;
  }
  return false;
}

}  // namespace

ScheduleResult Schedule(std::vector<QueuedJob> jobs, std::vector<SchedulerSlot> slots,
                        std::map<std::string, int64_t> room) {
  std::sort(jobs.begin(), jobs.end(), [](const QueuedJob& a, const QueuedJob& b) {
    return std::tuple(-a.priority, a.create_sequence) < std::tuple(-b.priority, b.create_sequence);
  });
  ScheduleResult result;
  std::set<std::string> held_back;  // device kinds that an earlier job waits for
  for (const QueuedJob& job : jobs) {
    const bool possible = job.ranks > 0 && FitsOnEmptyNodes(job, slots);
    if (possible && !job.backing_off && held_back.count(job.device) == 0) {
      if (const auto picked = PlaceElsewhereFirst(job, slots, room)) {
        for (SchedulerSlot* slot : *picked) {
          slot->free = false;
          if (const auto it = room.find(slot->memory_domain);
              job.device == "cpu" && it != room.end()) {
            it->second -= job.slot_bytes;
          }
        }
        result.admitted.push_back(
            {job.uid, GroupsStayOnNodes(job) ? InRankOrder(*picked) : Assign(job, *picked)});
        continue;
      }
      held_back.insert(job.device);
    }
    result.queue.push_back(job.uid);
    if (!possible) result.impossible.push_back(job.uid);
  }
  return result;
}

}  // namespace switchyard::coordinator
