#include "worker/trainer/ops/device_products.h"

#include <c10/util/Exception.h>

namespace switchyard::trainer::ops {
namespace {

DeviceProducts* installed = nullptr;

}  // namespace

DeviceProducts& Products() {
  TORCH_CHECK(installed != nullptr, "this program computes on CPUs only");
  return *installed;
}

void InstallDeviceProducts(DeviceProducts* products) { installed = products; }

}  // namespace switchyard::trainer::ops
