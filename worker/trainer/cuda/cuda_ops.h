// The operations of ops/ on an NVIDIA GPU, over kernels/, cuDNN and CUTLASS.
#pragma once

#include <memory>

#include "worker/trainer/ops/device_ops.h"

namespace switchyard::trainer::cuda {

struct CudaOpsOptions {
  // Attention's backward gives the same bytes from run to run; everything else always does.
  bool deterministic = false;
};

std::unique_ptr<ops::DeviceOps> MakeCudaOps(const CudaOpsOptions& options);

}  // namespace switchyard::trainer::cuda
