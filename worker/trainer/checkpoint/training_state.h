// A checkpoint back into parameters and optimizer state, on any mesh.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/checkpoint_metadata.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

// Fills registry.values() and `state`, whose tensors are allocated, from the checkpoint in
// `directory` and returns what else it says. Each rank reads what it holds and owns; the values are
// the same bits whatever mesh wrote them and whatever mesh reads them. Bytes are not checked
// against their hashes: call VerifyCheckpoint (checkpoint_verify.h) before. InvalidArgument when
// the optimizer profile is not the one that wrote it, or tensors do not match the model.
absl::StatusOr<CheckpointMetadata> LoadTrainingState(const std::string& directory,
                                                     const ParameterRegistry& registry,
                                                     OptimizerState& state);

}  // namespace switchyard::trainer
