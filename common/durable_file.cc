#include "common/durable_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

// Linux moves at most 0x7ffff000 bytes a call.
constexpr int64_t kMaxTransfer = int64_t{1} << 30;

// Free bytes for an unprivileged user where `path` lies or would lie; -1 when it cannot be told.
int64_t FreeBytes(const std::string& path) {
  fs::path at(path);
  std::error_code error;
  while (!at.empty() && !fs::exists(at, error) && at != at.parent_path()) at = at.parent_path();
  if (at.empty()) at = ".";
  struct statvfs info {};
  if (::statvfs(at.c_str(), &info) != 0) return -1;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

}  // namespace

absl::Status FileError(int error, absl::string_view what, const std::string& path,
                       int64_t needed_bytes) {
  const std::string message = absl::StrFormat("cannot %s %s: %s", what, path, std::strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(absl::StrFormat(
          "%s (needed %d bytes, %d bytes free); free space there or choose another output", message,
          needed_bytes, FreeBytes(path)));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::Status CheckFreeSpace(const std::string& path, int64_t needed_bytes) {
  const int64_t free_bytes = FreeBytes(path);
  if (free_bytes < 0 || needed_bytes <= free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "not enough space at %s: needed %d bytes, %d bytes free; free space there or choose "
      "another output",
      path, needed_bytes, free_bytes));
}

absl::StatusOr<UniqueFd> OpenToRead(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return FileError(errno, "open", path);
  return fd;
}

absl::StatusOr<UniqueFd> OpenToWriteParts(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return FileError(errno, "create", path);
  return fd;
}

absl::Status WriteAt(int fd, const std::string& path, const void* data, int64_t size,
                     int64_t offset) {
  const char* from = static_cast<const char*>(data);
  int64_t left = size;
  while (left > 0) {
    const ssize_t wrote = ::pwrite(fd, from, std::min(left, kMaxTransfer), offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return FileError(errno, "write", path, left);
    from += wrote;
    left -= wrote;
    offset += wrote;
  }
  return absl::OkStatus();
}

absl::Status ReadAt(int fd, const std::string& path, void* data, int64_t size, int64_t offset) {
  char* to = static_cast<char*>(data);
  int64_t left = size;
  while (left > 0) {
    const ssize_t got = ::pread(fd, to, std::min(left, kMaxTransfer), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FileError(errno, "read", path);
    if (got == 0) {
      return absl::DataLossError(
          absl::StrFormat("%s ends at byte %d, %d bytes too early", path, offset, left));
    }
    to += got;
    left -= got;
    offset += got;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> FileSize(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return FileError(errno, "stat", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrFormat("%s is not a regular file", path));
  }
  return static_cast<int64_t>(info.st_size);
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes) {
  SWITCHYARD_ASSIGN_OR_RETURN(UniqueFd fd, OpenToRead(path));
  SWITCHYARD_ASSIGN_OR_RETURN(const int64_t size, FileSize(fd.get(), path));
  if (size > max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("%s has %d bytes, more than the limit of %d", path, size, max_bytes));
  }
  std::string bytes(static_cast<size_t>(size), '\0');
  SWITCHYARD_RETURN_IF_ERROR(ReadAt(fd.get(), path, bytes.data(), size, 0));
  return bytes;
}

absl::Status SyncFile(int fd, const std::string& path) {
  if (::fsync(fd) != 0) return FileError(errno, "fsync", path);
  return absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return FileError(errno, "open", path);
  return SyncFile(fd.get(), path);
}

absl::Status WriteFileDurably(const std::string& path, absl::string_view bytes) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd.valid()) return FileError(errno, "create", path);
  SWITCHYARD_RETURN_IF_ERROR(
      WriteAt(fd.get(), path, bytes.data(), static_cast<int64_t>(bytes.size()), 0));
  return SyncFile(fd.get(), path);
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) return FileError(error.value(), "create directory", path);
  return absl::OkStatus();
}

absl::Status MakeWritableDirectory(const std::string& path) {
  SWITCHYARD_RETURN_IF_ERROR(MakeDirectories(path));
  std::string probe = path + "/.switchyard-probe-XXXXXX";
  if (::mkdtemp(probe.data()) == nullptr) return FileError(errno, "write to", path);
  ::rmdir(probe.c_str());
  return absl::OkStatus();
}

}  // namespace switchyard
