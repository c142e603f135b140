// Weights of a Hugging Face model directory into this rank's parameters.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

// Fills registry.values() from the safetensors files of `directory`, reading only what this rank
// holds; F32, BF16 and F16 tensors become the parameter dtype. With `state` (may be null), master
// remainders are set so that weights and remainders are the checkpoint's values exactly. Before
// anything is read it is proved that every tensor is used exactly once over the mesh and every
// parameter is written exactly once; InvalidArgument lists what is missing, unexpected, of the
// wrong shape or dtype. NotFound: directory or files missing. DataLoss: a damaged file.
absl::Status LoadModel(const std::string& directory, const ParameterRegistry& registry,
                       OptimizerState* state);

}  // namespace switchyard::trainer
