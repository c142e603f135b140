// Whether a job may write its checkpoints into a directory.
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

}  // namespace switchyard::coordinator
