// What the training loop needs of a GPU besides operations on tensors: choosing it, its groups of
// ranks, its dispatchers, its memory.
//
// The program for CPUs has none: asked for a GPU it starts the program beside it that does
// (device_program_cpu.cc), so that CPU jobs never load the CUDA libraries.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "common/mesh.h"
#include "worker/trainer/comm/mesh_groups.h"
#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

struct DeviceUse {
  int local_rank = 0;          // of the visible GPUs, this one (modulo their number)
  bool deterministic = false;  // the same bytes from run to run, also where that is slower
};

struct DeviceMemory {
  int64_t peak_bytes = 0;     // most that was ever taken from the allocator at once
  int64_t current_bytes = 0;  // taken from the allocator now
  int64_t used_bytes = 0;     // of the whole GPU now, by whomever
  int64_t allocations = 0;    // asked of the driver so far
};

class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;

  // Selects the GPU and a stream of its own for this thread, and installs ops::DeviceOps. Throws
  // TrainerError(kDevice) when there is no GPU that can be used, with the reason.
  virtual at::Device Use(const DeviceUse& use) = 0;
  virtual std::unique_ptr<TokenDispatcher> MakeLocalDispatcher(int64_t num_experts,
                                                               int64_t top_k) = 0;
  virtual void Synchronize() = 0;
  virtual DeviceMemory Memory() = 0;
  // From now on a call that waits for the GPU throws (true), or does not (false).
  virtual void ForbidWaiting(bool forbid) = 0;
};

// Null in the program for CPUs.
DeviceBackend* GpuBackend();

// Call before anything else that lasts: when `device` is cuda and this program has no CUDA part, it
// becomes the program beside it that has, with the same arguments and descriptors. Returns where
// that is not needed or not possible; then SelectDevice says why.
void BecomeProgramFor(const std::string& device);

// at::kCPU, or the GPU of this rank, ready to use. Throws TrainerError: kConfig, kDevice.
at::Device SelectDevice(const std::string& device, const DeviceUse& use);

}  // namespace switchyard::trainer
