#include "worker/trainer/train/device_backend.h"

#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {

at::Device SelectDevice(const std::string& device, const DeviceUse& use) {
  if (device == "cpu") return at::kCPU;
  if (device != "cuda") {
    throw TrainerError(ExitCode::kConfig, "device is \"" + device + "\"; use \"cpu\" or \"cuda\"");
  }
  if (GpuBackend() == nullptr) {
    throw TrainerError(ExitCode::kDevice,
                       "device is \"cuda\", but there is no switchyard-trainer-cuda beside this "
                       "program; build with SWITCHYARD_CUDA=ON and install both, or use \"cpu\"");
  }
  return GpuBackend()->Use(use);
}

}  // namespace switchyard::trainer
