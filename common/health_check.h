// One finding of `switchyard doctor`, and findings as JSON between its programs.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

enum class Health { kOk, kSkipped, kWarning, kFailed };

struct HealthCheck {
  std::string name;  // "versions", "disk", ...: constant
  Health health = Health::kOk;
  std::string message;  // what was found
  std::string fix;      // what to do; empty when nothing is to be done
};

// "ok", "skipped", "warning", "failed"
const char* HealthWord(Health health);

// {"checks": [{"name", "status", "message", "fix"}]}, one line.
std::string HealthJson(const std::vector<HealthCheck>& checks);
// InvalidArgument when `text` is something else.
absl::StatusOr<std::vector<HealthCheck>> ParseHealthJson(const std::string& text);

}  // namespace switchyard
