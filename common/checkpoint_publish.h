// How a finished checkpoint appears under its name, and how it goes: by one rename.
//
// Called by the agent (for the coordinator) and by a trainer that runs alone. Knows of a checkpoint
// only who wrote it: training_state/state.json names job_uid, step and epoch.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

inline constexpr char kTrainingStateDirectory[] = "training_state";
inline constexpr char kTrainingStateFile[] = "training_state/state.json";

struct CheckpointIdentity {
  std::string job_uid;
  int64_t step = 0;
  int64_t epoch = 0;

  bool operator==(const CheckpointIdentity&) const = default;
};

// Reads kTrainingStateFile. NotFound when the directory is no checkpoint of ours, DataLoss when the
// file is damaged.
absl::StatusOr<CheckpointIdentity> ReadCheckpointIdentity(const std::string& directory);

// Renames `stage` to `final_path`, a name that must not exist, and makes the renaming durable.
// Parents of `final_path` are created. OK without doing anything when `stage` is gone and
// `final_path` already is the checkpoint `identity`. AlreadyExists, naming both job_uids, when
// something else is there; FailedPrecondition when the stage holds another checkpoint than
// `identity`; NotFound when there is no stage.
absl::Status PublishCheckpoint(const std::string& stage, const std::string& final_path,
                               const CheckpointIdentity& identity);

// AlreadyExists, as PublishCheckpoint would say it, when `final_path` is there already.
absl::Status CheckVacant(const std::string& final_path, const CheckpointIdentity& identity);

// Removes a checkpoint of `job_uid`: renames it away first, so that a half-removed one never bears
// its name. OK when it is gone already. FailedPrecondition when it is another job's or none of
// ours.
absl::Status RemoveCheckpoint(const std::string& directory, const std::string& job_uid);

// Bytes of all files below `directory`.
absl::StatusOr<int64_t> DirectoryBytes(const std::string& directory);

}  // namespace switchyard
