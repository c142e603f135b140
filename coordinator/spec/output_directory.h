// Whether a job may write its checkpoints into a directory, and whether two directories are one.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard::coordinator {

struct OutputDirectory {
  std::string problem;      // what stands against it and the fix; empty when nothing
  int64_t free_bytes = -1;  // of its file system; -1 unknown
};

// Tries to write where `path` is or would be created, and leaves nothing behind. What other jobs
// left in output/final or output/checkpoints is a problem.
OutputDirectory InspectOutputDirectory(const std::string& path, const std::string& job_uid);

// `path` without doubled slashes, "." parts and a slash at its end. Looks at no file.
std::string NormalPath(const std::string& path);
// NormalPath with symbolic links resolved, as far as it exists.
std::string ResolvedPath(const std::string& path);
// Whether `path` is `directory` or lies in it, by their names alone: both normal or resolved.
bool IsInside(const std::string& path, const std::string& directory);

}  // namespace switchyard::coordinator
