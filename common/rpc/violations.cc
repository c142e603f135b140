#include "common/rpc/violations.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace switchyard::rpc {
namespace {

// Payloads are keyed by the type URL that google.protobuf.Any uses, so the gRPC edge copies them as
// they are.
template <typename Detail>
void Attach(const Detail& detail, absl::Status& status) {
  status.SetPayload(absl::StrCat("type.googleapis.com/", Detail::descriptor()->full_name()),
                    absl::Cord(detail.SerializeAsString()));
}

void AttachReason(const std::string& reason, absl::Status& status) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  info.set_domain("switchyard");
  Attach(info, status);
}

}  // namespace

absl::Status InvalidArgument(const std::vector<Violation>& violations) {
  std::string message = "invalid request";
  google::rpc::BadRequest bad_request;
  for (const Violation& violation : violations) {
    absl::StrAppend(&message, "\n  ", violation.field, ": ", violation.description);
    auto* entry = bad_request.add_field_violations();
    entry->set_field(violation.field);
    entry->set_description(violation.description);
  }
  absl::Status status = absl::InvalidArgumentError(message);
  Attach(bad_request, status);
  AttachReason("INVALID_REQUEST", status);
  return status;
}

absl::Status Error(absl::StatusCode code, const std::string& reason, const std::string& message) {
  absl::Status status(code, message);
  AttachReason(reason, status);
  if (code == absl::StatusCode::kFailedPrecondition) {
    google::rpc::PreconditionFailure failure;
    auto* violation = failure.add_violations();
    violation->set_type(reason);
    violation->set_description(message);
    Attach(failure, status);
  }
  return status;
}

absl::Status NotFound(const std::string& resource_type, const std::string& name) {
  absl::Status status =
      absl::NotFoundError(absl::StrCat(resource_type, " \"", name, "\" does not exist"));
  google::rpc::ResourceInfo info;
  info.set_resource_type(resource_type);
  info.set_resource_name(name);
  Attach(info, status);
  AttachReason("NOT_FOUND", status);
  return status;
}

}  // namespace switchyard::rpc
