// Errors for people and for programs: google.rpc details as a list of field, value and fix.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace switchyard::coordinator {

// Several lines, ends with '\n'; `color` marks the word "error".
std::string ErrorText(const absl::Status& status, bool color);
// {"error": {"code", "reason", "message", "violations": [{"field", "description"}]}}, one line.
std::string ErrorJson(const absl::Status& status);

}  // namespace switchyard::coordinator
