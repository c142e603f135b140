// The program for GPUs: its backend.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "worker/trainer/cuda/cuda_check.h"
#include "worker/trainer/cuda/cuda_ops.h"
#include "worker/trainer/cuda/local_dispatcher.h"
#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {
namespace {

class CudaBackend final : public DeviceBackend {
 public:
  at::Device Use(const DeviceUse& use) override {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count == 0) {
      throw TrainerError(
          ExitCode::kDevice,
          absl::StrCat("device is \"cuda\", but no GPU can be used: ", cudaGetErrorString(error),
                       "; see nvidia-smi for the driver"));
    }
    const int index = use.local_rank % count;
    cudaDeviceProp properties{};
    cuda::Check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    if (properties.major != 9) {
      throw TrainerError(
          ExitCode::kDevice,
          absl::StrCat("GPU ", index, " is ", properties.name, " of compute capability ",
                       properties.major, ".", properties.minor,
                       "; this trainer's kernels are for 9.0 (H100, H200)"));
    }
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false));
    at::globalContext().setAllowBF16ReductionCuBLAS(false);  // sums of split products in float32
    ops_ = cuda::MakeCudaOps({use.deterministic});
    ops::InstallDeviceOps(ops_.get());
    return at::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
  }

  std::unique_ptr<TokenDispatcher> MakeLocalDispatcher(int64_t num_experts,
                                                       int64_t top_k) override {
    return cuda::MakeCudaLocalDispatcher(num_experts, top_k);
  }

  void Synchronize() override { cuda::Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

  DeviceMemory Memory() override {
    const auto statistics =
        c10::cuda::CUDACachingAllocator::getDeviceStats(c10::cuda::current_device());
    DeviceMemory memory;
    memory.peak_bytes = statistics.allocated_bytes[0].peak;
    memory.allocations = statistics.num_device_alloc;
    memory.current_bytes = statistics.allocated_bytes[0].current;
    size_t free = 0, total = 0;
    cuda::Check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    memory.used_bytes = static_cast<int64_t>(total - free);
    return memory;
  }

  void ForbidWaiting(bool forbid) override {
    c10::cuda::warning_state().set_sync_debug_mode(forbid ? c10::cuda::SyncDebugMode::L_ERROR
                                                          : c10::cuda::SyncDebugMode::L_DISABLED);
  }

 private:
  std::unique_ptr<ops::DeviceOps> ops_;
};

}  // namespace

DeviceBackend* GpuBackend() {
  static CudaBackend backend;
  return &backend;
}

void BecomeProgramFor(const std::string&) {}

}  // namespace switchyard::trainer
