// Small files that must be whole, and files and directories that are nobody else's to read.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace switchyard::security {

// Replaces `path` in one rename, durable when it returns. The file never exists with a wider mode
// than `mode`.
absl::Status ReplaceWholeFile(const std::string& path, absl::string_view bytes, mode_t mode);
// Writes a token's text, mode 0600, and no newline after it: whoever copies the file into a header
// as it is, like a Secret of Kubernetes, would send the newline too.
absl::Status WriteTokenFile(const std::string& path, absl::string_view text);
// Whether a file is nobody else's to read, for a process of user `self`. Root's files may also be
// read by their group: so root lends secrets to services that run as other users.
bool IsPrivate(const struct stat& info, uid_t self);
// PermissionDenied, with the chmod that mends it, when `path` is not private; NotFound when it is
// missing.
absl::Status CheckPrivate(const std::string& path);

// Creates a directory, with its parents where they are missing, that only this user may enter. One
// that exists is left as it is: it may hold more than ours.
absl::Status MakePrivateDirectory(const std::string& path);
// Logs the warning `event` when every user of this machine may enter a directory of ours, in which
// `what` is kept.
void WarnIfOpenToOthers(const char* event, const std::string& directory, absl::string_view what);

}  // namespace switchyard::security
