// The GPUs of this machine, from the driver's own library.
//
// libnvidia-ml.so.1 is opened at run time: the agent is built and runs where there is none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::agent {

struct Gpu {
  std::string uuid;  // as CUDA_VISIBLE_DEVICES takes it
  std::string product;
  int64_t memory_bytes = 0;
};

// In the driver's order. Empty without the library, without a driver or without a GPU; why is
// logged.
std::vector<Gpu> FindGpus();

// Those of `gpus` that `list` leaves to this process: CUDA_VISIBLE_DEVICES, as a cluster's
// scheduler sets it, indices or UUIDs (or their beginnings) up to the first that does not exist.
// Null: all.
std::vector<Gpu> VisibleGpus(const std::vector<Gpu>& gpus, const char* list);

}  // namespace switchyard::agent
