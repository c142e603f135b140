#include "worker/agent/files/path_guard.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "switchyard/trainer/v1/config.pb.h"

namespace switchyard::agent {
namespace {

// Empty paths lead nowhere and are somebody else's to refuse.
absl::Status Check(const char* what, const security::AllowedPaths& allowed,
                   const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  absl::Status status = allowed.Check(path);
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("on this node ", what, " ", status.message()));
}

}  // namespace

absl::Status CheckPaths(const security::PathPolicy& policy, const v1::ProbePaths& request) {
  SWITCHYARD_RETURN_IF_ERROR(Check("model", policy.models, request.model()));
  for (const std::string& data : request.data())
    SWITCHYARD_RETURN_IF_ERROR(Check("data", policy.data, data));
  return Check("output", policy.outputs, request.output());
}

absl::Status CheckPaths(const security::PathPolicy& policy, const v1::PrepareData& request) {
  SWITCHYARD_RETURN_IF_ERROR(Check("model", policy.models, request.model()));
  SWITCHYARD_RETURN_IF_ERROR(Check("data", policy.data, request.train()));
  SWITCHYARD_RETURN_IF_ERROR(Check("data", policy.data, request.eval()));
  return Check("output", policy.outputs, request.output_dir());
}

absl::Status CheckPaths(const security::PathPolicy& policy, const v1::PublishCheckpoint& request) {
  SWITCHYARD_RETURN_IF_ERROR(Check("checkpoint", policy.outputs, request.stage_path()));
  return Check("checkpoint", policy.outputs, request.final_path());
}

absl::Status CheckPaths(const security::PathPolicy& policy, const v1::RemoveCheckpoint& request) {
  return Check("checkpoint", policy.outputs, request.path());
}

absl::Status CheckTrainerConfig(const security::PathPolicy& policy, const std::string& json) {
  if (!policy.restricted()) return absl::OkStatus();
  trainer::v1::TrainerConfig config;
  google::protobuf::util::JsonParseOptions parse;
  parse.ignore_unknown_fields = true;  // the trainer refuses those by name
  if (const auto status = google::protobuf::util::JsonStringToMessage(json, &config, parse);
      !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("train.json cannot be read: ", std::string(status.message())));
  }
  SWITCHYARD_RETURN_IF_ERROR(Check("model", policy.models, config.model()));
  SWITCHYARD_RETURN_IF_ERROR(Check("data", policy.outputs, config.train_data()));
  SWITCHYARD_RETURN_IF_ERROR(Check("data", policy.outputs, config.eval_data()));
  SWITCHYARD_RETURN_IF_ERROR(Check("checkpoint", policy.outputs, config.resume_from()));
  return Check("output", policy.outputs, config.checkpoint().output());
}

}  // namespace switchyard::agent
