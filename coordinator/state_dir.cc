#include "coordinator/state_dir.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/file_lock.h"
#include "common/security/private_file.h"

namespace switchyard::coordinator {

absl::StatusOr<StateDir> StateDir::Open(const std::string& path) {
  if (absl::Status made = security::MakePrivateDirectory(path); !made.ok()) {
    return absl::PermissionDeniedError(
        absl::StrCat("--state-dir ", path, " cannot be created: ", made.message()));
  }
  security::WarnIfOpenToOthers("state_dir.open_to_others", path, "jobs and logs");
  absl::StatusOr<UniqueFd> lock = TryLockFile(absl::StrCat(path, "/lock"), 0640);
  if (absl::IsFailedPrecondition(lock.status())) {
    return absl::UnavailableError(
        absl::StrCat("--state-dir ", path,
                     " is in use by another coordinator; stop it or take another directory"));
  }
  if (!lock.ok()) {
    return absl::PermissionDeniedError(
        absl::StrCat("--state-dir ", path, " cannot be used: ", lock.status().message()));
  }
  return StateDir(path, *std::move(lock));
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
