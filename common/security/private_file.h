// Small files that must be whole and, where they hold secrets, nobody else's to read.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace switchyard::security {

// Replaces `path` in one rename, durable when it returns. The file never exists with a wider mode
// than `mode`.
absl::Status ReplaceWholeFile(const std::string& path, absl::string_view bytes, mode_t mode);
// PermissionDenied, with the chmod that mends it, when group or others may read `path`; NotFound
// when it is missing.
absl::Status CheckPrivate(const std::string& path);

}  // namespace switchyard::security
