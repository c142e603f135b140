// Ranks of one group as processes, one a GPU of this machine.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "common/mesh.h"
#include "tests/trainer/support/multi_process.h"
#include "worker/trainer/cuda/mesh_groups_cuda.h"

namespace switchyard::trainer {

// GPUs of this machine; asked in another process, so that this one may still fork.
int CountGpus();

#define SWITCHYARD_REQUIRE_GPUS(n)                                                    \
  if (CountGpus() < (n))                                                              \
  GTEST_SKIP() << "needs " << (n) << " GPUs of one machine, here are " << CountGpus() \
               << ": communication between GPUs was built but not run"

// Brings rank 0's rendezvous id to ranks forked after it was made.
class SharedId {
 public:
  SharedId();
  // Rank 0 makes the id; the others wait for it, at most a minute.
  std::string Get(int rank);

 private:
  struct Memory;
  std::shared_ptr<Memory> memory_;
};

// Joins as rank `rank` on GPU `rank`. Called in the rank's process.
CudaMeshGroups JoinOnGpu(SharedId& id, int rank, int ranks, int expert_parallel, int num_experts,
                         int64_t window_bytes,
                         std::chrono::milliseconds time_limit = std::chrono::seconds(30));

}  // namespace switchyard::trainer
