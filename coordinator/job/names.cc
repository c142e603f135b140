#include "coordinator/job/names.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace switchyard::coordinator {
namespace {

std::vector<std::string> Parts(const std::string& name) { return absl::StrSplit(name, '/'); }

}  // namespace

std::string MakeJobName(const std::string& project, const std::string& job_id) {
  return absl::StrCat("projects/", project, "/jobs/", job_id);
}

std::optional<JobName> ParseJobName(const std::string& name) {
  const auto parts = Parts(name);
  if (parts.size() != 4 || parts[0] != "projects" || parts[2] != "jobs" || parts[1].empty() ||
      parts[3].empty()) {
    return std::nullopt;
  }
  return JobName{parts[1], parts[3]};
}

std::optional<std::string> ParseProjectName(const std::string& name) {
  const auto parts = Parts(name);
  if (parts.size() != 2 || parts[0] != "projects" || parts[1].empty()) return std::nullopt;
  return parts[1];
}

std::optional<std::string> ParseNodeName(const std::string& name) {
  const auto parts = Parts(name);
  if (parts.size() != 2 || parts[0] != "nodes" || parts[1].empty()) return std::nullopt;
  return parts[1];
}

std::string MakeCheckpointName(const std::string& job_name, int64_t step, bool final) {
  return absl::StrCat(job_name, "/checkpoints/", final ? "final" : absl::StrCat(step));
}

std::optional<std::string> JobOfCheckpointName(const std::string& name) {
  const auto parts = Parts(name);
  if (parts.size() != 6 || parts[4] != "checkpoints" || parts[5].empty()) return std::nullopt;
  const std::string job = MakeJobName(parts[1], parts[3]);
  if (parts[0] != "projects" || parts[2] != "jobs" || !ParseJobName(job)) return std::nullopt;
  return job;
}

}  // namespace switchyard::coordinator
