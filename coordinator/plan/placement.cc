#include "coordinator/plan/placement.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "coordinator/plan/memory_model.h"

namespace switchyard::coordinator {
namespace {

using Slots = std::vector<PlannerSlot>;

// Slots by place where an ep group may lie, each in node and index order.
std::map<std::string, Slots> Groups(const Slots& slots, const std::string& device,
                                    int64_t min_bytes) {
  std::map<std::string, Slots> groups;
  for (const PlannerSlot& slot : slots) {
    if (slot.device == device && slot.memory_bytes >= min_bytes)
      groups[PlacementGroup(slot)].push_back(slot);
  }
  for (auto& [key, group] : groups) {
    std::sort(group.begin(), group.end(), [](const PlannerSlot& a, const PlannerSlot& b) {
      return std::tie(a.node, a.index) < std::tie(b.node, b.index);
    });
  }
  return groups;
}

// The group that holds `ranks` with least left over.
std::optional<Slots> PlaceInOneGroup(const std::map<std::string, Slots>& groups, size_t ranks) {
  const Slots* best = nullptr;
  for (const auto& [key, group] : groups) {
    if (group.size() < ranks) continue;
    if (best == nullptr || group.size() < best->size()) best = &group;
  }
  if (best == nullptr) return std::nullopt;
  return Slots(best->begin(), best->begin() + static_cast<std::ptrdiff_t>(ranks));
}

// Whole ep groups, node by node, largest node first.
std::optional<Slots> PlaceAcrossNodes(const std::map<std::string, Slots>& groups, size_t ranks,
                                      size_t expert_parallel) {
  std::vector<const Slots*> nodes;
  for (const auto& [key, group] : groups) nodes.push_back(&group);
  std::stable_sort(nodes.begin(), nodes.end(),
                   [](const Slots* a, const Slots* b) { return a->size() > b->size(); });
  Slots placed;
  for (const Slots* node : nodes) {
    const size_t whole = node->size() / expert_parallel * expert_parallel;
    const size_t take = std::min(whole, ranks - placed.size());
    placed.insert(placed.end(), node->begin(), node->begin() + static_cast<std::ptrdiff_t>(take));
    if (placed.size() == ranks) return placed;
  }
  return std::nullopt;
}

}  // namespace

std::string PlacementGroup(const PlannerSlot& slot) {
  // A node that names no domain is one of its own.
  if (slot.device == "cpu" && !slot.memory_domain.empty()) return slot.memory_domain;
  return slot.node;
}

std::optional<Slots> PlaceRanks(const Slots& slots, const std::string& device, int ranks,
                                int expert_parallel, int64_t min_bytes) {
  const auto groups = Groups(slots, device, min_bytes);
  const auto wanted = static_cast<size_t>(ranks);
  if (auto placed = PlaceInOneGroup(groups, wanted)) return placed;
  if (device == "cpu") return std::nullopt;
  return PlaceAcrossNodes(groups, wanted, static_cast<size_t>(expert_parallel));
}

std::optional<Slots> PlaceOnLargestSlots(const Slots& slots, const std::string& device, int ranks,
                                         int expert_parallel) {
  std::set<int64_t, std::greater<>> sizes;
  for (const PlannerSlot& slot : slots) {
    if (slot.device == device) sizes.insert(slot.memory_bytes);
  }
  for (const int64_t size : sizes) {
    if (auto placed = PlaceRanks(slots, device, ranks, expert_parallel, size)) return placed;
  }
  return std::nullopt;
}

int64_t SmallestSlotBytes(const Slots& slots) {
  int64_t smallest = 0;
  for (const PlannerSlot& slot : slots) {
    if (smallest == 0 || slot.memory_bytes < smallest) smallest = slot.memory_bytes;
  }
  return smallest;
}

int CountNodes(const Slots& slots) {
  std::set<std::string> nodes;
  for (const PlannerSlot& slot : slots) nodes.insert(slot.node);
  return static_cast<int>(nodes.size());
}

double CoresPerRank(const Slots& placement) {
  double share = 0;
  int machine = 1;
  for (const PlannerSlot& slot : placement) {
    const double threads = std::max(1, slot.cpu_cores / std::max(1, slot.node_slots));
    share = share == 0 ? threads : std::min(share, threads);
    machine = std::max(machine, slot.cpu_cores);
  }
  return std::min(std::max(share, 1.0),
                  static_cast<double>(machine) / static_cast<double>(placement.size()));
}

int64_t SlotBytesNeeded(const v1::Plan& plan) {
  return static_cast<int64_t>(
      std::ceil(static_cast<double>(plan.memory_bytes_per_rank()) / (1 - kMemoryMargin)));
}

}  // namespace switchyard::coordinator
