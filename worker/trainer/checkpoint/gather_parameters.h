// Parameters or gradients of the whole model, by checkpoint tensor, from the pieces that ranks
// hold.
//
// For models that fit the memory of one rank several times: `check`.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "worker/trainer/checkpoint/checkpoint_files.h"
#include "worker/trainer/checkpoint/safetensors_tensor.h"
#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/model/parameter_registry.h"

namespace switchyard::trainer {

// What is gathered: contiguous [numel] of a block of this rank, values or gradients, any floating
// dtype.
using BlockTensors = std::function<at::Tensor(int block)>;

enum class Replicas {
  kEqual,  // every replica holds the same: values
  kSum,    // the sum over replicas is wanted: gradients before they are reduced
};

// Every tensor of `files` that is trained (not the copies of tied ones), named `prefix` + its name,
// in float32 and its shape; the same on every rank. `local` is a layout of `shape` on one rank of a
// mesh. Collective. Throws c10::Error when the files do not hold exactly this model.
NamedTensors GatherParameters(const ModelShape& shape, const ParameterRegistry& local,
                              MeshCommunicators& communicators, const CheckpointFiles& files,
                              const std::string& prefix, const BlockTensors& blocks,
                              Replicas replicas);

}  // namespace switchyard::trainer
