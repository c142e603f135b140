// A plan as text for terminals: the mesh, memory by category against capacity, predicted speed and
// time, what was rejected and why.
//
// Pure; used by the CLI for `plan` and `submit` and by the coordinator for events and reports.
// Knows nothing of how a plan is made.
#pragma once

#include <string>

#include "switchyard/v1/plan.pb.h"

namespace switchyard::coordinator {

struct PlanTextOptions {
  bool color = false;    // ANSI colours
  int max_rejected = 6;  // alternatives shown
  bool defaults = true;  // list defaulted fields
};

// Lines end with '\n'. No line is longer than 100 columns unless a single value is.
std::string RenderPlan(const v1::Plan& plan, const PlanTextOptions& options = {});
// One line: "4 ranks = 2 expert-parallel x 2 replicas on cpu, 8 x 2 sequences a rank, 612 MiB of 4
// GiB, ...".
std::string SummarizePlan(const v1::Plan& plan);

}  // namespace switchyard::coordinator
