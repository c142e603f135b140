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
#include "common/model/dispatch_window.h"
#include "worker/trainer/comm/communicator.h"
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

// A rank's groups of the mesh, and what brings tokens to experts over them.
class DeviceGroups {
 public:
  virtual ~DeviceGroups() = default;
  virtual MeshCommunicators& communicators() = 0;
  // Borrows this.
  virtual std::unique_ptr<TokenDispatcher> MakeDispatcher(int64_t num_experts,
                                                          const DispatchWindowShape& shape) = 0;
};

class DeviceBackend {
 public:
  virtual ~DeviceBackend() = default;

  // Selects the GPU and a stream of its own for this thread, and installs ops::DeviceOps. Throws
  // TrainerError(kDevice) when there is no GPU that can be used, with the reason.
  virtual at::Device Use(const DeviceUse& use) = 0;
  // The rendezvous id of an attempt, made by rank 0: letters and digits.
  virtual std::string NewRendezvousId() = 0;
  // Joins the groups of the mesh. Collective; throws PeerLost.
  virtual std::unique_ptr<DeviceGroups> Join(const Mesh& mesh, const std::string& rendezvous_id,
                                             int rank, const DispatchWindowShape& window) = 0;
  // Product name of the GPU in use, as its driver tells it.
  virtual std::string Product() = 0;
  virtual void Synchronize() = 0;
  virtual DeviceMemory Memory() = 0;
  // From now on a call that waits for the GPU throws (true), or does not (false).
  virtual void ForbidWaiting(bool forbid) = 0;
  // Records everything that runs, until StopTrace writes it as a Chrome trace and returns a table
  // of kernels by time.
  virtual void StartTrace() = 0;
  virtual std::string StopTrace(const std::string& path) = 0;
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
