// An installed runtime: one directory with the trainer, its LibTorch and the Python of data
// preparation, all of one version (deploy/runtime/install_runtime.sh makes it).
#pragma once

#include <string>

#include "absl/status/status.h"

namespace switchyard::agent {

struct RuntimePaths {
  std::string trainer;
  std::string python;
  std::string prepare_data;
};
RuntimePaths PathsOfRuntime(const std::string& directory);

// NotFound when `directory` holds no complete runtime, FailedPrecondition when it is of another
// version than `version`: agent and trainer of one release speak the same lines.
absl::Status CheckRuntime(const std::string& directory, const std::string& version);

}  // namespace switchyard::agent
