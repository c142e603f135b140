// Whole lists, page by page, where several commands need them.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/cli/api_client.h"

namespace switchyard::coordinator {

absl::StatusOr<v1::ListEventsResponse> FetchEvents(const ApiClient& client, const std::string& job);
absl::StatusOr<v1::ListCheckpointsResponse> FetchCheckpoints(const ApiClient& client,
                                                             const std::string& job);
absl::StatusOr<v1::ListNodesResponse> FetchNodes(const ApiClient& client);

}  // namespace switchyard::coordinator
