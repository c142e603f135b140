// Why a plan is what it is, in sentences with values: problems, warnings, and what was rejected.
#pragma once

#include <string>
#include <vector>

#include "coordinator/plan/mesh_choice.h"

namespace switchyard::coordinator {

// Why no candidate fits; `candidates` has none that does.
std::vector<std::string> ExplainInfeasible(const PlanInput& input, const ResolvedJob& job,
                                           const std::vector<Candidate>& candidates);

// "checkpoint.output needs 1.02 TiB ... but only 61.0 GiB are free ..."; empty when the disk is
// large enough or its size unknown.
std::string ExplainDisk(const PlanInput& input, const ResolvedJob& job, int64_t checkpoint_bytes,
                        int64_t needed_bytes);

std::vector<std::string> ListWarnings(const PlanInput& input, const ResolvedJob& job,
                                      const Candidate& chosen);

// What was not taken, best first: of the chosen mesh and micro-batch the activation memories that
// did not fit, then at most one choice a mesh, and the runner-up micro-batch of the chosen one.
std::vector<v1::PlanAlternative> ListRejected(const ResolvedJob& job,
                                              const std::vector<Candidate>& candidates,
                                              const Candidate& chosen);

}  // namespace switchyard::coordinator
