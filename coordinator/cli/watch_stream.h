// The stream of WatchJobs that survives its coordinator: reconnects with full jitter and its resume
// token.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/cli/api_client.h"
#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

struct WatchOptions {
  std::string name;  // resource name of the job
  // How long to go on trying: before the first answer, and after a connection was lost.
  absl::Duration first_retry_for = absl::Seconds(10);
  absl::Duration lost_retry_for = absl::Minutes(10);
};

struct WatchHandlers {
  // Every message, in order. Returning false ends the watch.
  std::function<bool(const v1::WatchJobsResponse&)> on_message;
  // The connection was lost, and why; called before each wait.
  std::function<void(const absl::Status&)> on_lost;
  // It is back.
  std::function<void()> on_back;
};

// Returns OK when a handler ended it, or the error that cannot be waited out.
absl::Status WatchJob(const ApiClient& client, const WatchOptions& options,
                      const WatchHandlers& handlers);

}  // namespace switchyard::coordinator
