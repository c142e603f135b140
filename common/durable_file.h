// Files whose bytes must survive a power cut, and whose errors must say what to do.
//
// Errors name the path; a full disk is ResourceExhausted with the needed and the free bytes, a path
// that may not be written PermissionDenied, a missing one NotFound.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/unique_fd.h"

namespace switchyard {

// Status of errno value `error` met while doing `what` ("write", "open") to `path`. `needed_bytes`
// is named when the disk is full.
absl::Status FileError(int error, absl::string_view what, const std::string& path,
                       int64_t needed_bytes = 0);

// ResourceExhausted unless the file system of `path` (or of its nearest existing parent) has
// `needed_bytes` free for this user.
absl::Status CheckFreeSpace(const std::string& path, int64_t needed_bytes);

absl::StatusOr<UniqueFd> OpenToRead(const std::string& path);
// Creates the file when it is missing; keeps what it holds, since several processes may write parts
// of it.
absl::StatusOr<UniqueFd> OpenToWriteParts(const std::string& path);

// Writes all of `size` bytes at `offset`.
absl::Status WriteAt(int fd, const std::string& path, const void* data, int64_t size,
                     int64_t offset);
// Reads exactly `size` bytes at `offset`; DataLoss when the file ends before.
absl::Status ReadAt(int fd, const std::string& path, void* data, int64_t size, int64_t offset);

absl::StatusOr<int64_t> FileSize(int fd, const std::string& path);
// Whole file as text; ResourceExhausted when larger than `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes);

absl::Status SyncFile(int fd, const std::string& path);
absl::Status SyncDirectory(const std::string& path);
// Creates or replaces `path` with `bytes` and fsyncs it (not its directory).
absl::Status WriteFileDurably(const std::string& path, absl::string_view bytes);
// Creates the directory and its parents when missing.
absl::Status MakeDirectories(const std::string& path);
// The same, and an error unless something can be made in it. Permission bits do not tell: root
// passes them, and read-only or virtual file systems have them set.
absl::Status MakeWritableDirectory(const std::string& path);

}  // namespace switchyard
