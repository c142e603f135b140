// Whether what a coordinator asks for stays within the directories that this node allows.
//
// The last word on paths is the node's: it does not trust a coordinator to have checked. Each
// returns the first thing that is wrong, with the path, or OK.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/security/allowed_paths.h"
#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::agent {

absl::Status CheckPaths(const security::PathPolicy& policy, const v1::ProbePaths& request);
absl::Status CheckPaths(const security::PathPolicy& policy, const v1::PrepareData& request);
absl::Status CheckPaths(const security::PathPolicy& policy, const v1::PublishCheckpoint& request);
absl::Status CheckPaths(const security::PathPolicy& policy, const v1::RemoveCheckpoint& request);
// Paths of a train.json; InvalidArgument when it cannot be read.
absl::Status CheckTrainerConfig(const security::PathPolicy& policy, const std::string& json);

}  // namespace switchyard::agent
