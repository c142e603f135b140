#include "tests/trainer/cuda/gpu_ranks.h"

#include <c10/cuda/CUDAFunctions.h>
#include <cuda_runtime_api.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <new>
#include <stdexcept>
#include <thread>

namespace switchyard::trainer {

int CountGpus() {
  static const int count = [] {
    const pid_t pid = fork();
    if (pid == 0) {
      int found = 0;
      if (cudaGetDeviceCount(&found) != cudaSuccess) found = 0;
      _exit(found);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
  }();
  return count;
}

struct SharedId::Memory {
  std::atomic<bool> ready;
  char text[512];
};

SharedId::SharedId() {
  void* page =
      mmap(nullptr, sizeof(Memory), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) throw std::bad_alloc();
  memory_ = std::shared_ptr<Memory>(new (page) Memory{},
                                    [](Memory* memory) { munmap(memory, sizeof(Memory)); });
}

std::string SharedId::Get(int rank) {
  if (rank == 0) {
    const std::string id = NewNcclRendezvousId();
    std::memcpy(memory_->text, id.c_str(), id.size() + 1);
    memory_->ready = true;
  }
  for (int i = 0; !memory_->ready; ++i) {
    if (i == 6000) throw std::runtime_error("rank 0 made no rendezvous id");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return memory_->text;
}

CudaMeshGroups JoinOnGpu(SharedId& id, int rank, int ranks, int expert_parallel, int num_experts,
                         int64_t window_bytes, std::chrono::milliseconds time_limit) {
  c10::cuda::set_device(static_cast<c10::DeviceIndex>(rank));
  const Mesh mesh = *Mesh::Create(ranks, expert_parallel, num_experts);
  return JoinCudaMeshGroups(mesh, {.rendezvous_id = id.Get(rank),
                                   .rank = rank,
                                   .device = rank,
                                   .window_bytes = window_bytes,
                                   .time_limit = time_limit,
                                   .join_limit = time_limit});
}

}  // namespace switchyard::trainer
