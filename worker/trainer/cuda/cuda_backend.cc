// The program for GPUs: its backend.
#include <ATen/Context.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/model/cuda_dispatch_window.h"
#include "worker/trainer/cuda/cuda_check.h"
#include "worker/trainer/cuda/cuda_dispatcher.h"
#include "worker/trainer/cuda/cuda_ops.h"
#include "worker/trainer/cuda/gpu_cpus.h"
#include "worker/trainer/cuda/local_dispatcher.h"
#include "worker/trainer/cuda/mesh_groups_cuda.h"
#include "worker/trainer/cuda/nvtx_ranges.h"
#include "worker/trainer/cuda/trace.h"
#include "worker/trainer/train/device_backend.h"
#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {
namespace {

class CudaDeviceGroups final : public DeviceGroups {
 public:
  explicit CudaDeviceGroups(CudaMeshGroups groups) : groups_(std::move(groups)) {}
  MeshCommunicators& communicators() override { return groups_.communicators; }
  std::unique_ptr<TokenDispatcher> MakeDispatcher(int64_t num_experts,
                                                  const DispatchWindowShape& shape) override {
    if (!groups_.why_no_window.empty())
      log::Warning("trainer.no_window", {{"reason", groups_.why_no_window}});
    if (shape.expert_parallel > 1) return MakeCudaDispatcher(groups_, num_experts, shape);
    return cuda::MakeCudaLocalDispatcher(num_experts, shape.experts_per_token);
  }

 private:
  CudaMeshGroups groups_;
};

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
    // An agent says which of the visible ones; a trainer alone deals them out to its ranks.
    const char* given = std::getenv("SWITCHYARD_LOCAL_DEVICE");
    const int index = (given != nullptr ? std::atoi(given) : use.local_rank) % count;
    cudaDeviceProp properties{};
    cuda::Check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    if (properties.major != 9) {
      throw TrainerError(
          ExitCode::kDevice,
          absl::StrCat("GPU ", index, " is ", properties.name, " of compute capability ",
                       properties.major, ".", properties.minor,
                       "; this trainer's kernels are for 9.0 (H100, H200)"));
    }
    BindToCpusNear(index, count);
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(index));
    at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(/*isHighPriority=*/false));
    at::globalContext().setAllowBF16ReductionCuBLAS(false);  // sums of split products in float32
    cuda::ShowRangesToProfilers();
    ops_ = cuda::MakeCudaOps({use.deterministic});
    ops::InstallDeviceOps(ops_.get());
    return at::Device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
  }

  std::string NewRendezvousId() override { return NewNcclRendezvousId(); }

  std::unique_ptr<DeviceGroups> Join(const Mesh& mesh, const std::string& rendezvous_id, int rank,
                                     const DispatchWindowShape& window) override {
    return std::make_unique<CudaDeviceGroups>(
        JoinCudaMeshGroups(mesh, {.rendezvous_id = rendezvous_id,
                                  .rank = rank,
                                  .device = c10::cuda::current_device(),
                                  .window_bytes = CudaDispatchWindowLayout(window).bytes}));
  }

  std::string Product() override {
    cudaDeviceProp properties{};
    cuda::Check(cudaGetDeviceProperties(&properties, c10::cuda::current_device()),
                "cudaGetDeviceProperties");
    return properties.name;
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

  void StartTrace() override { cuda::StartTrace(); }
  std::string StopTrace(const std::string& path) override { return cuda::StopTrace(path); }

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
