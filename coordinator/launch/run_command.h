// Runs a short-lived program of the cluster's tools and collects what it prints.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::coordinator {

struct CommandResult {
  int exit_code = 0;  // 128 + signal when it was killed
  std::string output;
  std::string errors;
};

// `command[0]` is looked up in PATH. NotFound when it cannot be started, DeadlineExceeded when it
// was killed after `timeout`: it may have had its effect all the same.
absl::StatusOr<CommandResult> RunCommand(const std::vector<std::string>& command,
                                         const std::string& input,
                                         std::chrono::milliseconds timeout);

}  // namespace switchyard::coordinator
