// Writes a checkpoint: a Hugging Face directory in the layout of the one that training started
// from, and the training state beside it.
//
// All ranks call SaveCheckpoint with the same request; each writes and fsyncs the elements that it
// owns under ZeRO-1, no rank gathers anything, and nobody waits for anybody. The checkpoint is
// complete when every rank has returned OK; then one process publishes it
// (common/checkpoint_publish.h).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/checkpoint_metadata.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

struct SaveRequest {
  // Directory to write into; created when missing. Must be of this attempt and step only.
  std::string stage;
  // Model directory whose tensor names, dtypes, order, files and sidecar files (config, tokenizer,
  // generation) the result takes over.
  std::string source;
  // adam_step is taken from the state, mesh from the registry.
  CheckpointMetadata metadata;
};

// Returns the bytes that this rank wrote. ResourceExhausted: disk full, with needed and free bytes.
// PermissionDenied: not writable. OutOfRange: a weight does not fit in the dtype of its file.
absl::StatusOr<int64_t> SaveCheckpoint(const SaveRequest& request,
                                       const ParameterRegistry& registry,
                                       const OptimizerState& state);

}  // namespace switchyard::trainer
