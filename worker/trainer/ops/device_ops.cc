#include "worker/trainer/ops/device_ops.h"

#include <c10/util/Exception.h>

namespace switchyard::trainer::ops {
namespace {

DeviceOps* installed = nullptr;

}  // namespace

DeviceOps& Device() {
  TORCH_CHECK(installed != nullptr, "tensors lie on a GPU, but this program has no CUDA part");
  return *installed;
}

void InstallDeviceOps(DeviceOps* device_ops) { installed = device_ops; }

}  // namespace switchyard::trainer::ops
