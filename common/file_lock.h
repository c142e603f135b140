// Files that one process at a time holds locked (flock). Closing lets go, and the kernel does it
// when the process ends, however it ends; programs that it starts do not inherit the lock.
#pragma once

#include <sys/types.h>

#include <string>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"

namespace switchyard {

// Creates `path` with `mode` when it is missing. FailedPrecondition when another holds it,
// Unimplemented when the file system knows no locks, else as FileError (durable_file.h).
absl::StatusOr<UniqueFd> TryLockFile(const std::string& path, mode_t mode);
// The same, but waits for whoever holds it.
absl::StatusOr<UniqueFd> LockFile(const std::string& path, mode_t mode);

}  // namespace switchyard
