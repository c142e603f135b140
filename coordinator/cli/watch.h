// Follows one job to its end and shows it; used by `watch` and by `submit --watch`.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/cli_context.h"

namespace switchyard::coordinator {

// `name` is the job's resource name. Returns the exit code of how the job ended.
absl::StatusOr<int> FollowJob(const ApiClient& client, CliContext& context,
                              const std::string& name);

}  // namespace switchyard::coordinator
