// Checks a job spec and reports every violation at once, each with field, value and fix.
#pragma once

#include <string>
#include <vector>

#include "common/rpc/violations.h"
#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

// Everything that can be said of the spec alone: presence, ranges, formats, absolute paths without
// "..". Empty when the spec is valid.
std::vector<rpc::Violation> ValidateSpec(const v1::JobSpec& spec);

// Fills every unset field that has a fixed default (not what the planner chooses) and returns field
// path -> value of each field filled.
std::vector<std::pair<std::string, std::string>> ApplyDefaults(v1::JobSpec& spec);

// ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$
bool IsValidJobId(const std::string& id);

}  // namespace switchyard::coordinator
