// What this node sees of a job's paths, in sentences that a user can act on.
#pragma once

#include <chrono>
#include <string>

#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::agent {

// Answers ProbePaths; the coordinator adds the node's name to the sentences. `node` makes the name
// of a trial file unique. A nonce that is not there yet is waited for up to `nonce_wait`: the first
// node may be writing it, and network file systems show it late.
v1::ProbeResult ProbePathsOnDisk(const v1::ProbePaths& request, const std::string& node,
                                 std::chrono::milliseconds nonce_wait);

}  // namespace switchyard::agent
