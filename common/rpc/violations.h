// Rich errors: what google.rpc details say, carried in an absl::Status until the gRPC edge.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard::rpc {

// One thing wrong with a request.
struct Violation {
  std::string field;        // path in the request, "training.learning_rate"
  std::string description;  // value and fix: "is -1; must be greater than 0"
};

// InvalidArgument with all violations; the message lists them, one a line.
absl::Status InvalidArgument(const std::vector<Violation>& violations);
// `code` with google.rpc.ErrorInfo{reason}; reason is constant and upper case.
absl::Status Error(absl::StatusCode code, const std::string& reason, const std::string& message);
// NotFound with ResourceInfo.
absl::Status NotFound(const std::string& resource_type, const std::string& name);

}  // namespace switchyard::rpc
