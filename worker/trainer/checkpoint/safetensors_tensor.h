// safetensors files as at::Tensor, for files small enough to hold in memory (batches, outputs of
// `check`).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/safetensors.h"

namespace switchyard::trainer {

// InvalidArgument on a dtype that the container does not have (complex, quantized).
absl::StatusOr<DataType> DataTypeOf(at::ScalarType type);
at::ScalarType ScalarTypeOf(DataType type);

// A copy of tensor `name` on the CPU, in its dtype and shape. NotFound names file and tensor.
absl::StatusOr<at::Tensor> ReadTensor(const SafetensorsFile& file, const std::string& name);

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Every tensor of a file, in file order.
absl::StatusOr<NamedTensors> ReadTensors(const std::string& path);

// Writes a new file, one tensor after the other, and renames it to `path` when it is complete.
// Tensors may be on any device.
absl::Status WriteTensors(const std::string& path, const NamedTensors& tensors);

}  // namespace switchyard::trainer
