#include "common/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "common/durable_file.h"

namespace switchyard {
namespace {

absl::StatusOr<UniqueFd> Lock(const std::string& path, mode_t mode, int operation) {
  UniqueFd lock(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, mode));
  if (!lock.valid()) return FileError(errno, "open", path);
  int result;
  do {
    result = ::flock(lock.get(), operation);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return lock;
  if (errno == EWOULDBLOCK)
    return absl::FailedPreconditionError(absl::StrCat(path, " is locked by another process"));
  return absl::UnimplementedError(FileError(errno, "lock", path).message());
}

}  // namespace

absl::StatusOr<UniqueFd> TryLockFile(const std::string& path, mode_t mode) {
  return Lock(path, mode, LOCK_EX | LOCK_NB);
}

absl::StatusOr<UniqueFd> LockFile(const std::string& path, mode_t mode) {
  return Lock(path, mode, LOCK_EX);
}

}  // namespace switchyard
