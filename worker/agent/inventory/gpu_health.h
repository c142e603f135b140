// How the GPUs of this machine are, and how they are connected, from the driver's own library.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::agent {

// -1 where the driver does not say.
struct GpuHealth {
  int index = 0;
  std::string uuid;
  std::string product;
  std::string error;  // set: the driver cannot reach it, and nothing below is known
  int64_t memory_bytes = -1;
  int64_t used_bytes = -1;
  int celsius = -1;
  int64_t ecc_uncorrected = -1;  // since the driver was loaded
  int rows_pending = -1;         // 1: row remapping waits for a reset
  int rows_failed = -1;          // 1: remapping failed
  int64_t slowdown = -1;         // hardware or thermal reasons for lower clocks, as bits
  int nvlinks_active = -1;
  int nvlinks = -1;
};

struct GpuMachine {
  std::string driver;  // version; empty without a driver
  std::string why;     // when there is no GPU
  std::vector<GpuHealth> gpus;
  // [i][j]: GPUs reach each other's memory by NVLink, or by any way; indices into `gpus`.
  std::vector<std::vector<bool>> by_nvlink;
  std::vector<std::vector<bool>> by_peer;
};

GpuMachine InspectGpus();

}  // namespace switchyard::agent
