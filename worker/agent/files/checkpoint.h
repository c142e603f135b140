// Publishing and removing checkpoints for the coordinator: common/checkpoint_publish with the
// agent's messages.
#pragma once

#include "absl/status/status.h"
#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::agent {

// Idempotent; what went wrong is in `error` of the answer. Does nothing unless `allowed`.
v1::CheckpointPublished PublishOnDisk(const v1::PublishCheckpoint& request,
                                      const absl::Status& allowed = absl::OkStatus());
// Only a checkpoint that names the job.
absl::Status RemoveCheckpointOnDisk(const v1::RemoveCheckpoint& request);

}  // namespace switchyard::agent
