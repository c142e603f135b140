// Reads checkpoint tensors into this rank's parameter values and master remainders.
//
// Shared by the start of a job (weights of the model directory) and by its resumption (masters or
// remainders where the checkpoint has them). Which tensor a value comes from is the caller's
// choice.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "worker/trainer/checkpoint/checkpoint_map.h"
#include "worker/trainer/checkpoint/safetensors.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/optim/optimizer_state.h"

namespace switchyard::trainer {

// A tensor in an open file; both outlive the load.
struct TensorSource {
  const SafetensorsFile* file = nullptr;
  const SafetensorsTensor* tensor = nullptr;
};

// What a parameter's value is read from.
struct ValueSource {
  TensorSource value;  // F32, BF16 or F16
  // I16 in the shape of a BF16 value: together they are a float32 (element_convert.h). May be
  // absent.
  TensorSource remainder;
};

// Fills every element of registry.values() (padding with zeros) from sources[i] for checkpoint
// tensor i, and, where state has master remainders, those of the owned elements, so that weight and
// remainder together are the source's value exactly. `state` may be null.
absl::Status LoadValues(const std::vector<ValueSource>& sources, const CheckpointMap& map,
                        const ParameterRegistry& registry, OptimizerState* state);

// Fills `flat` [shard_numel] of this rank's shard of `block` from sources[i]; padding is zero. The
// sources must have the dtype of `flat`.
absl::Status LoadShard(const std::vector<TensorSource>& sources, const CheckpointMap& map,
                       const ParameterRegistry& registry, int block, at::Tensor flat);

}  // namespace switchyard::trainer
