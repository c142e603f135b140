#include "coordinator/spec/output_directory.h"

#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint_publish.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;

// `path` or the nearest directory above it that exists.
fs::path ExistingAncestor(fs::path path) {
  std::error_code error;
  while (!fs::exists(path, error) && path.has_parent_path() && path != path.parent_path()) {
    path = path.parent_path();
  }
  return path;
}

// Empty when a directory can be made in `directory`. Permission bits do not tell: root passes them,
// and read-only or virtual file systems have them set.
std::string TryToWrite(const fs::path& directory) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    return absl::StrCat("\"", directory.string(), "\" is not a directory");
  }
  std::string probe = (directory / ".switchyard-probe-XXXXXX").string();
  if (::mkdtemp(probe.data()) == nullptr) {
    return absl::StrCat("\"", directory.string(), "\" cannot be written (", std::strerror(errno),
                        ")");
  }
  ::rmdir(probe.c_str());
  return "";
}

// Checkpoint directories that a job could have left: final and the committed steps, in name order.
std::vector<fs::path> CheckpointsIn(const fs::path& output) {
  std::error_code error;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(output / "checkpoints", error)) {
    if (entry.is_directory(error) && entry.path().filename().string().rfind("step-", 0) == 0) {
      found.push_back(entry.path());
    }
  }
  std::sort(found.begin(), found.end());
  if (fs::exists(output / "final", error)) found.insert(found.begin(), output / "final");
  return found;
}

std::string FindForeignResult(const fs::path& output, const std::string& job_uid) {
  for (const fs::path& checkpoint : CheckpointsIn(output)) {
    const auto identity = ReadCheckpointIdentity(checkpoint.string());
    const std::string owner = identity.ok() ? identity->job_uid : "";
    if (!owner.empty() && owner == job_uid) continue;
    const std::string name = fs::relative(checkpoint, output).string();
    return absl::StrCat("it holds ", owner.empty() ? "something else" : "another job's result",
                        " (", name, owner.empty() ? "" : absl::StrCat(" of job ", owner),
                        "); choose another directory or move that away");
  }
  return "";
}

}  // namespace

OutputDirectory InspectOutputDirectory(const std::string& path, const std::string& job_uid) {
  OutputDirectory result;
  const fs::path ancestor = ExistingAncestor(path);
  result.problem = TryToWrite(ancestor);
  struct statvfs disk {};
  if (::statvfs(ancestor.c_str(), &disk) == 0) {
    result.free_bytes = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  }
  if (result.problem.empty()) result.problem = FindForeignResult(path, job_uid);
  return result;
}

std::string NormalPath(const std::string& path) {
  std::string normal = fs::path(path).lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

std::string ResolvedPath(const std::string& path) {
  std::error_code error;
  const fs::path resolved = fs::weakly_canonical(path, error);
  return NormalPath(error ? path : resolved.string());
}

bool IsInside(const std::string& path, const std::string& directory) {
  return path == directory ||
         absl::StartsWith(path, directory == "/" ? directory : absl::StrCat(directory, "/"));
}

}  // namespace switchyard::coordinator
