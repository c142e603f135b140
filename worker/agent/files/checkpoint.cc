#include "worker/agent/files/checkpoint.h"

#include <string>

#include "common/checkpoint_publish.h"

namespace switchyard::agent {

v1::CheckpointPublished PublishOnDisk(const v1::PublishCheckpoint& request,
                                      const absl::Status& allowed) {
  v1::CheckpointPublished result;
  result.set_job_uid(request.job_uid());
  result.set_epoch(request.epoch());
  result.set_step(request.step());
  result.set_final_path(request.final_path());
  const CheckpointIdentity identity{request.job_uid(), request.step(), request.epoch()};
  const absl::Status published =
      allowed.ok()
          ? switchyard::PublishCheckpoint(request.stage_path(), request.final_path(), identity)
          : allowed;
  if (!published.ok()) {
    result.set_error(std::string(published.message()));
    return result;
  }
  // The checkpoint is there; a failure to count its bytes is not one to publish it.
  const auto bytes = DirectoryBytes(request.final_path());
  result.set_bytes(bytes.ok() ? *bytes : 0);
  return result;
}

absl::Status RemoveCheckpointOnDisk(const v1::RemoveCheckpoint& request) {
  return switchyard::RemoveCheckpoint(request.path(), request.job_uid());
}

}  // namespace switchyard::agent
