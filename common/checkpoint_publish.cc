#include "common/checkpoint_publish.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kMaxStateBytes = int64_t{16} << 20;

std::string Text(const CheckpointIdentity& identity) {
  return absl::StrFormat("job_uid %s, step %d, epoch %d", identity.job_uid, identity.step,
                         identity.epoch);
}

// Errno of renaming directory `from` to `to`, which must not exist.
int RenameNoReplace(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // Some network file systems have no RENAME_NOREPLACE. A directory replaces nothing but an empty
  // directory.
  if (::rename(from.c_str(), to.c_str()) == 0) return 0;
  return errno == ENOTEMPTY ? EEXIST : errno;
}

absl::Status Occupied(const std::string& final_path, const CheckpointIdentity& wanted) {
  const auto there = ReadCheckpointIdentity(final_path);
  if (!there.ok()) {
    return absl::AlreadyExistsError(absl::StrFormat(
        "%s exists and is no checkpoint of this service; move it away or choose another output",
        final_path));
  }
  if (there->job_uid != wanted.job_uid) {
    return absl::AlreadyExistsError(
        absl::StrFormat("%s holds another job's result (%s); this is job_uid %s: move it away or "
                        "choose another output",
                        final_path, Text(*there), wanted.job_uid));
  }
  return absl::AlreadyExistsError(
      absl::StrFormat("%s already holds a checkpoint of this job (%s); the new one is %s: resume "
                      "from it or move it away",
                      final_path, Text(*there), Text(wanted)));
}

}  // namespace

absl::StatusOr<CheckpointIdentity> ReadCheckpointIdentity(const std::string& directory) {
  const std::string path = directory + "/" + kTrainingStateFile;
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxStateBytes));
  const json state = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto integer = [&state](const char* key) {
    return state.contains(key) && state[key].is_number_integer();
  };
  if (!state.is_object() || !state.contains("job_uid") || !state["job_uid"].is_string() ||
      !integer("step") || !integer("epoch")) {
    return absl::DataLossError(absl::StrFormat("%s: needs job_uid, step and epoch", path));
  }
  return CheckpointIdentity{state["job_uid"], state["step"], state["epoch"]};
}

absl::Status PublishCheckpoint(const std::string& stage, const std::string& final_path,
                               const CheckpointIdentity& identity) {
  std::error_code error;
  if (!fs::exists(stage, error)) {
    const auto there = ReadCheckpointIdentity(final_path);
    if (there.ok() && *there == identity) return absl::OkStatus();
    if (fs::exists(final_path, error)) return Occupied(final_path, identity);
    return absl::NotFoundError(
        absl::StrFormat("neither %s nor %s exists: nothing to publish", stage, final_path));
  }
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointIdentity staged, ReadCheckpointIdentity(stage));
  if (staged != identity) {
    return absl::FailedPreconditionError(
        absl::StrFormat("%s holds %s, asked to publish %s", stage, Text(staged), Text(identity)));
  }
  const std::string parent = fs::path(final_path).parent_path().string();
  const std::string stage_parent = fs::path(stage).parent_path().string();
  SWITCHYARD_RETURN_IF_ERROR(MakeDirectories(parent.empty() ? "." : parent));
  if (const int failed = RenameNoReplace(stage, final_path); failed != 0) {
    if (failed == EEXIST || failed == ENOTDIR) return Occupied(final_path, identity);
    return FileError(failed, absl::StrFormat("rename %s to", stage), final_path);
  }
  SWITCHYARD_RETURN_IF_ERROR(SyncDirectory(parent.empty() ? "." : parent));
  return stage_parent == parent ? absl::OkStatus()
                                : SyncDirectory(stage_parent.empty() ? "." : stage_parent);
}

absl::Status CheckVacant(const std::string& final_path, const CheckpointIdentity& identity) {
  std::error_code error;
  return fs::exists(fs::symlink_status(final_path, error)) ? Occupied(final_path, identity)
                                                           : absl::OkStatus();
}

absl::Status RemoveCheckpoint(const std::string& directory, const std::string& job_uid) {
  std::error_code error;
  const std::string doomed = directory + ".removing";
  if (fs::exists(directory, error)) {
    const auto there = ReadCheckpointIdentity(directory);
    if (!there.ok()) {
      return absl::FailedPreconditionError(
          absl::StrFormat("%s is not removed: %s", directory, there.status().message()));
    }
    if (there->job_uid != job_uid) {
      return absl::FailedPreconditionError(
          absl::StrFormat("%s is not removed: it belongs to job_uid %s, not %s", directory,
                          there->job_uid, job_uid));
    }
    fs::remove_all(doomed, error);
    if (const int failed = RenameNoReplace(directory, doomed); failed != 0) {
      return FileError(failed, "remove", directory);
    }
    const std::string parent = fs::path(directory).parent_path().string();
    SWITCHYARD_RETURN_IF_ERROR(SyncDirectory(parent.empty() ? "." : parent));
  }
  fs::remove_all(doomed, error);
  if (error) return FileError(error.value(), "remove", doomed);
  return absl::OkStatus();
}

absl::StatusOr<int64_t> DirectoryBytes(const std::string& directory) {
  std::error_code error;
  int64_t bytes = 0;
  fs::recursive_directory_iterator it(directory, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (it->is_regular_file(error)) bytes += static_cast<int64_t>(it->file_size(error));
    if (error) break;
  }
  if (error) return FileError(error.value(), "read", directory);
  return bytes;
}

}  // namespace switchyard
