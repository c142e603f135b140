// The page with all jobs and nodes. Pure: everything it says is in its input.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/node.pb.h"

namespace switchyard::coordinator {

struct JobListInput {
  std::vector<std::shared_ptr<const v1::Job>> jobs;  // newest first
  std::vector<v1::Node> nodes;
  std::string project;  // only its jobs; empty for all
  std::string state;    // "active", "ended" or empty for all
};

// "<main>...</main>"
std::string RenderJobList(const JobListInput& input);

}  // namespace switchyard::coordinator
