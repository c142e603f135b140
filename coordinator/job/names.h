// Resource names: projects/{project}/jobs/{job_id}[/checkpoints/{step}], nodes/{node}.
#pragma once

#include <optional>
#include <string>

namespace switchyard::coordinator {

struct JobName {
  std::string project;
  std::string job_id;
};

std::string MakeJobName(const std::string& project, const std::string& job_id);
// Empty unless `name` is "projects/{project}/jobs/{job_id}" with non-empty parts.
std::optional<JobName> ParseJobName(const std::string& name);
// {project} of "projects/{project}"; empty otherwise.
std::optional<std::string> ParseProjectName(const std::string& name);
// {node} of "nodes/{node}"; empty otherwise.
std::optional<std::string> ParseNodeName(const std::string& name);
// Checkpoints are named by their step; the result by "final".
std::string MakeCheckpointName(const std::string& job_name, int64_t step, bool final);
// The job's name in a checkpoint's name; empty when `name` is none.
std::optional<std::string> JobOfCheckpointName(const std::string& name);

}  // namespace switchyard::coordinator
