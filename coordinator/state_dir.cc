#include "coordinator/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/security/private_file.h"

namespace switchyard::coordinator {

absl::StatusOr<StateDir> StateDir::Open(const std::string& path) {
  if (absl::Status made = security::MakePrivateDirectory(path); !made.ok()) {
    return absl::PermissionDeniedError(
        absl::StrCat("--state-dir ", path, " cannot be created: ", made.message()));
  }
  if (security::IsOpenToOthers(path)) {
    log::Warning("state_dir.open_to_others",
                 {{"path", path},
                  {"what",
                   "every user of this machine can read jobs and logs there; chmod o-rwx "
                   "it, or name one that does not exist yet"}});
  }
  const std::string lock_path = absl::StrCat(path, "/lock");
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!lock.valid()) {
    return absl::PermissionDeniedError(
        absl::StrCat("--state-dir ", path, " cannot be written: ", std::strerror(errno)));
  }
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::UnavailableError(
        absl::StrCat("--state-dir ", path,
                     " is in use by another coordinator; stop it or take another directory"));
  }
  return StateDir(path, std::move(lock));
}

absl::Status StateDir::WriteFile(const std::string& name, const std::string& text) const {
  const std::string path = absl::StrCat(path_, "/", name);
  const std::string temporary = path + ".new";
  {
    std::ofstream out(temporary, std::ios::trunc);
    out << text;
    if (!out.flush())
      return absl::ResourceExhaustedError(absl::StrCat(temporary, " cannot be written"));
  }
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  return error ? absl::InternalError(absl::StrCat(path, ": ", error.message())) : absl::OkStatus();
}

}  // namespace switchyard::coordinator
