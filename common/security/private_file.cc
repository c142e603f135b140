#include "common/security/private_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::security {

absl::Status ReplaceWholeFile(const std::string& path, absl::string_view bytes, mode_t mode) {
  const std::string temporary = absl::StrCat(path, ".new-", ::getpid());
  ::unlink(temporary.c_str());  // of an earlier process with this id
  {
    const UniqueFd fd(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
    if (!fd.valid()) return FileError(errno, "create", temporary);
    absl::Status written = WriteAt(fd.get(), temporary, bytes.data(), bytes.size(), 0);
    if (written.ok() && ::fchmod(fd.get(), mode) != 0) {  // the umask may have taken bits away
      written = FileError(errno, "chmod", temporary);
    }
    written.Update(SyncFile(fd.get(), temporary));
    if (!written.ok()) {
      ::unlink(temporary.c_str());
      return written;
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return FileError(error, "rename to", path);
  }
  const std::string directory = std::filesystem::path(path).parent_path().string();
  return SyncDirectory(directory.empty() ? "." : directory);
}

absl::Status WriteTokenFile(const std::string& path, absl::string_view text) {
  return ReplaceWholeFile(path, text, 0600);
}

bool IsPrivate(const struct stat& info, uid_t self) {
  // Volumes of Kubernetes are root's, readable by a group that the pod alone has.
  const bool lent = info.st_uid == 0 && self != 0;
  return (info.st_mode & (lent ? 0037 : 0077)) == 0;
}

absl::Status CheckPrivate(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return FileError(errno, "look at", path);
  if (IsPrivate(info, ::geteuid())) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(path, " holds a secret and may be read by others; run: chmod 600 ", path));
}

absl::Status MakePrivateDirectory(const std::string& path) {
  std::string name = path;
  while (name.size() > 1 && name.back() == '/') name.pop_back();
  const std::string parent = std::filesystem::path(name).parent_path().string();
  if (!parent.empty()) SWITCHYARD_RETURN_IF_ERROR(MakeDirectories(parent));
  if (::mkdir(name.c_str(), 0700) == 0) return absl::OkStatus();
  return errno == EEXIST ? MakeDirectories(name) : FileError(errno, "create directory", name);
}

void WarnIfOpenToOthers(const char* event, const std::string& directory, absl::string_view what) {
  struct stat info {};
  if (::stat(directory.c_str(), &info) != 0 || info.st_uid != ::geteuid() ||
      (info.st_mode & 0005) == 0) {
    return;
  }
  log::Warning(event, {{"path", directory},
                       {"what", absl::StrCat("every user of this machine can read ", what,
                                             " there; chmod o-rwx it, or name one that does not "
                                             "exist yet")}});
}

}  // namespace switchyard::security
