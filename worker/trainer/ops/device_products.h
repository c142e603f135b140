// Products of matrices on a GPU as ATen cannot ask for them: many grouped ones made ready by one
// launch, and a sum that does not begin with a copy.
//
// The program for GPUs installs its implementation with that of DeviceOps (device_ops.h).
// Everything is enqueued on the current stream; nothing waits for the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace switchyard::trainer::ops {

class DeviceProducts {
 public:
  virtual ~DeviceProducts() = default;

  // Grouped products (grouped_gemm.h) that `calls` asks for are only made ready, by one launch;
  // they must follow as asked for. All of one list of rows; at most 8.
  virtual void PrepareGrouped(const std::function<void()>& calls) = 0;
  // out [M, N] = c + a [M, K] b [N, K]^T, rounded once; all contiguous bfloat16. at::addmm_out
  // would first copy c.
  virtual void AddProduct(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                          const at::Tensor& out) = 0;
};

// The installed implementation; throws c10::Error in a program without one.
DeviceProducts& Products();
// Not owned.
void InstallDeviceProducts(DeviceProducts* products);

}  // namespace switchyard::trainer::ops
