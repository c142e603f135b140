// The file of --kubernetes: defaults and what is wrong with it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "coordinator/kubernetes/json.h"
#include "switchyard/launch/v1/kubernetes.pb.h"

namespace switchyard::coordinator {

// InvalidArgument names every wrong or missing field.
absl::StatusOr<launch::v1::KubernetesConfig> ReadKubernetesConfig(const std::string& path);

// A field of free form as JSON.
Json JsonOf(const google::protobuf::Struct& fields);

}  // namespace switchyard::coordinator
