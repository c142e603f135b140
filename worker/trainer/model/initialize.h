// Random values for a model that is not loaded.
#pragma once

#include <cstdint>

#include "common/model/model_shape.h"
#include "worker/trainer/model/parameter_registry.h"

namespace switchyard::trainer {

// Matrices N(0, initializer_range), norms 1, biases 0. Keyed by (seed, tensor, global expert), so a
// parameter has the same values on any mesh.
void InitializeParameters(const ModelShape& shape, ParameterRegistry& registry, int64_t seed);

}  // namespace switchyard::trainer
