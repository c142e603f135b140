// training_state/state.json: what a checkpoint is besides its tensors.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

struct CheckpointMetadata {
  // Who wrote it.
  std::string job;
  std::string job_uid;
  int64_t epoch = 0;   // attempt
  bool final = false;  // the job's result
  // On what.
  int world_size = 1;
  int expert_parallel = 1;
  std::string precision;  // of parameters: "float32" or "bfloat16"
  std::string optimizer;  // "exact" or "compact"
  std::string plan_json;  // the trainer's configuration, verbatim, for whoever looks; may be empty
  // Where training stands.
  TrainingProgress progress;
  int64_t adam_step = 0;      // of OptimizerState
  int64_t next_sequence = 0;  // data cursor: sequences taken so far, over all epochs of the data
  int64_t seed = 0;           // of data order and stochastic rounding
  std::string train_fingerprint;  // of the prepared training data

  int64_t step() const { return progress.step; }
};

std::string MetadataJson(const CheckpointMetadata& metadata);
// DataLoss names `path` and the field.
absl::StatusOr<CheckpointMetadata> ParseMetadata(const std::string& json, const std::string& path);
// Of the checkpoint in `directory`. NotFound when it has no training state.
absl::StatusOr<CheckpointMetadata> ReadMetadata(const std::string& directory);

}  // namespace switchyard::trainer
