// Jobs as text: the table of `jobs`, the description of `get`. Pure.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

std::string JobTable(const v1::ListJobsResponse& jobs, absl::Time now, bool with_project,
                     bool color);
std::string JobDescription(const v1::Job& job, absl::Time now, bool color);

}  // namespace switchyard::coordinator
