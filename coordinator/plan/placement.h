// Which slots the ranks of a mesh take. One rule for the planner (could it run on these nodes?) and
// for the scheduler (on the slots free now).
//
// CPU: all ranks in one memory domain (they share one /dev/shm). CUDA: the ranks of an ep group on
// one node. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/plan/planner.h"

namespace switchyard::coordinator {

// Slots in rank order, each of at least `min_bytes`, on as few nodes as possible; nothing when
// there are none. Of `slots` only those of `device` ("cpu" or "cuda") count. Deterministic.
std::optional<std::vector<PlannerSlot>> PlaceRanks(const std::vector<PlannerSlot>& slots,
                                                   const std::string& device, int ranks,
                                                   int expert_parallel, int64_t min_bytes);

// The placement whose smallest slot is largest.
std::optional<std::vector<PlannerSlot>> PlaceOnLargestSlots(const std::vector<PlannerSlot>& slots,
                                                            const std::string& device, int ranks,
                                                            int expert_parallel);

// Name of the place that an ep group may not leave: a memory domain on CPU, a node on CUDA.
std::string PlacementGroup(const PlannerSlot& slot);
// Memory of the smallest slot; 0 for none.
int64_t SmallestSlotBytes(const std::vector<PlannerSlot>& slots);
// Nodes that `slots` lie on.
int CountNodes(const std::vector<PlannerSlot>& slots);
// Cores that each rank of a CPU placement has: its node's share for its slot, and no more than its
// part of the machine. Nodes of one memory domain are the same machine.
double CoresPerRank(const std::vector<PlannerSlot>& placement);

// Bytes a slot must have so that a rank of `plan` fits with the planner's margin.
int64_t SlotBytesNeeded(const v1::Plan& plan);

}  // namespace switchyard::coordinator
