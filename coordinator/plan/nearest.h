// The smallest change to a spec, or to the machines, under which a job would fit. Pure.
#pragma once

#include <string>
#include <vector>

#include "coordinator/plan/planner.h"

namespace switchyard::coordinator {

// One change. Applying all changes of a list to the input makes a feasible plan.
struct SpecChange {
  std::string field;  // "training.micro_batch_sequences", "slots" or "slots_per_node" for machines
  std::string from;   // "unset" when it was
  std::string to;
};

// "mesh.expert_parallel: 4 -> 8"
std::string ChangeText(const SpecChange& change);

// Applies a change of FindNearest to `input`.
void ApplyChange(const SpecChange& change, PlanInput& input);

// Changes that together make `input` feasible, found by planning each; empty when none of those
// tried does. Cheapest first: the mesh, then the micro-batch, numerics, shorter sequences, and at
// last more machines.
std::vector<SpecChange> FindNearest(const PlanInput& input);

// As MakePlan, without the search for the nearest plan.
v1::Plan PlanAsAsked(const PlanInput& input);

}  // namespace switchyard::coordinator
