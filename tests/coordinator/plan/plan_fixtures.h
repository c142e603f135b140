// Models, machines and specs that the planner's tests share.
#pragma once

#include <string>
#include <vector>

#include "coordinator/plan/planner.h"

namespace switchyard::coordinator {

// Qwen3-30B-A3B as its config.json has it.
ModelShape Qwen3Moe30B();
// The quickstart's model: 10.8 M parameters, 32 experts, 4 a token.
ModelShape DemoModel();

v1::JobSpec SpecOf(int sequence_length, int global_batch);

// `nodes` x `slots_per_node` slots.
std::vector<PlannerSlot> GpuSlots(int nodes, int slots_per_node, const std::string& product,
                                  int64_t memory_bytes);
// Agents on one machine with `cores` cores.
std::vector<PlannerSlot> CpuSlots(int nodes, int slots_per_node, int cores, int64_t memory_bytes);

PlanInput Qwen3On(std::vector<PlannerSlot> slots);
// The quickstart's job on two agents of one machine with two cores.
PlanInput DemoInput();

int64_t BytesOf(const v1::Plan& plan, const std::string& category);

}  // namespace switchyard::coordinator
