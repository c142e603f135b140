// absl::Status <-> grpc::Status, with google.rpc details.
#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "common/rpc/violations.h"

namespace switchyard::rpc {

// Carries code, message and the details attached by violations.h; adds ErrorInfo{domain
// "switchyard"} always.
grpc::Status ToGrpcStatus(const absl::Status& status);
// The other way; the message gets the details' texts, readable for people.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace switchyard::rpc
