// What `switchyard doctor` wants to know of one machine: GPUs, shared memory, limits, disk, clock,
// the trainer. Each function reads one thing and says what to do about it.
#pragma once

#include <string>
#include <vector>

#include "common/health_check.h"
#include "worker/agent/inventory/gpu_health.h"

namespace switchyard::agent {

// Pure: health of each GPU, and how they reach each other.
std::vector<HealthCheck> CheckGpus(const GpuMachine& machine);
// Whether ranks may run on CPUs near their GPUs (the trainer binds them there); `sysfs` is "/sys"
// but in tests. Skipped where there is no NVIDIA GPU.
HealthCheck CheckGpuCpus(const std::string& sysfs);
// /dev/shm, where CPU ranks exchange data and NCCL keeps its buffers.
HealthCheck CheckSharedMemory(const std::string& directory, int slots);
// Open files and locked memory.
std::vector<HealthCheck> CheckLimits();
// Room for logs, results and prepared data.
HealthCheck CheckDisk(const std::string& directory);
// Whether the kernel says that the clock is kept by NTP or the like.
HealthCheck CheckClock();
// That the trainer starts, and is of this version.
HealthCheck CheckTrainer(const std::string& trainer);

}  // namespace switchyard::agent
