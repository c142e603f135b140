// What a spec's paths lead to, looked at before a job is queued: model, data and output.
//
// Touches the file system (the only part of spec/ that does) and never for long: headers are read,
// data is not. It sees what the coordinator's machine sees; before launch every node proves that it
// sees the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/model/model_shape.h"
#include "common/rpc/violations.h"
#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

struct Environment {
  std::vector<rpc::Violation> violations;  // empty when the job may be planned
  std::optional<ModelShape> model;         // when config.json could be read
  int64_t model_bytes = 0;                 // of the model's *.safetensors
  int64_t disk_free_bytes = -1;            // where checkpoint.output is or would be; -1 unknown
};

// Paths of `spec` are as ValidateSpec wants them, or empty: those are not looked at. `job_uid` is
// the job's own, so that it may find its earlier checkpoints in checkpoint.output; empty for a job
// that does not exist yet.
Environment InspectEnvironment(const v1::JobSpec& spec, const std::string& job_uid);

}  // namespace switchyard::coordinator
