#include "worker/agent/inventory/gpu_health.h"

#include <dlfcn.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace switchyard::agent {
namespace {

// The part of NVML's stable C interface that is needed.
struct Memory {
  unsigned long long total, free, used;
};
using Device = void*;
constexpr int kSuccess = 0;
constexpr unsigned kTextBytes = 96;
constexpr int kUncorrected = 1;
constexpr int kSinceDriverLoad = 0;
constexpr int kP2pRead = 0;
constexpr int kP2pNvlink = 2;
constexpr unsigned kMostLinks = 18;
// Hardware slowdown, software and hardware thermal slowdown, power brake.
constexpr unsigned long long kSlowdownBits = 0x8 | 0x20 | 0x40 | 0x80;

class Nvml {
 public:
  Nvml() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL)) {
    started_ = library_ != nullptr && Call<int (*)()>("nvmlInit_v2") == kSuccess;
  }
  ~Nvml() {
    if (started_) Call<int (*)()>("nvmlShutdown");
    if (library_ != nullptr) dlclose(library_);
  }
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  bool installed() const { return library_ != nullptr; }
  bool started() const { return started_; }

  // The function's code; -1 when the library does not have it.
  template <typename Function, typename... Arguments>
  int Call(const char* name, Arguments... arguments) const {
    auto* function = reinterpret_cast<Function>(dlsym(library_, name));
    return function == nullptr ? -1 : function(arguments...);
  }

 private:
  void* library_;
  bool started_ = false;
};

GpuHealth Inspect(const Nvml& nvml, int index, Device device) {
  GpuHealth gpu;
  gpu.index = index;
  char uuid[kTextBytes] = {}, name[kTextBytes] = {};
  const int code =
      nvml.Call<int (*)(Device, char*, unsigned)>("nvmlDeviceGetUUID", device, uuid, kTextBytes);
  if (code != kSuccess) {
    gpu.error = absl::StrCat("the driver cannot reach it (NVML code ", code, ")");
    return gpu;
  }
  nvml.Call<int (*)(Device, char*, unsigned)>("nvmlDeviceGetName", device, name, kTextBytes);
  gpu.uuid = uuid;
  gpu.product = name;
  Memory memory{};
  if (nvml.Call<int (*)(Device, Memory*)>("nvmlDeviceGetMemoryInfo", device, &memory) == kSuccess) {
    gpu.memory_bytes = static_cast<int64_t>(memory.total);
    gpu.used_bytes = static_cast<int64_t>(memory.used);
  }
  unsigned celsius = 0;
  if (nvml.Call<int (*)(Device, int, unsigned*)>("nvmlDeviceGetTemperature", device, 0, &celsius) ==
      kSuccess) {
    gpu.celsius = static_cast<int>(celsius);
  }
  unsigned long long errors = 0;
  if (nvml.Call<int (*)(Device, int, int, unsigned long long*)>(
          "nvmlDeviceGetTotalEccErrors", device, kUncorrected, kSinceDriverLoad, &errors) ==
      kSuccess) {
    gpu.ecc_uncorrected = static_cast<int64_t>(errors);
  }
  unsigned corrected = 0, uncorrected = 0, pending = 0, failed = 0;
  if (nvml.Call<int (*)(Device, unsigned*, unsigned*, unsigned*, unsigned*)>(
          "nvmlDeviceGetRemappedRows", device, &corrected, &uncorrected, &pending, &failed) ==
      kSuccess) {
    gpu.rows_pending = static_cast<int>(pending);
    gpu.rows_failed = static_cast<int>(failed);
  }
  unsigned long long reasons = 0;
  if (nvml.Call<int (*)(Device, unsigned long long*)>("nvmlDeviceGetCurrentClocksThrottleReasons",
                                                      device, &reasons) == kSuccess) {
    gpu.slowdown = static_cast<int64_t>(reasons & kSlowdownBits);
  }
  for (unsigned link = 0; link < kMostLinks; ++link) {
    int active = 0;
    if (nvml.Call<int (*)(Device, unsigned, int*)>("nvmlDeviceGetNvLinkState", device, link,
                                                   &active) != kSuccess) {
      break;
    }
    gpu.nvlinks = std::max(gpu.nvlinks, 0) + 1;
    gpu.nvlinks_active = std::max(gpu.nvlinks_active, 0) + (active != 0 ? 1 : 0);
  }
  return gpu;
}

bool Connected(const Nvml& nvml, Device from, Device to, int how) {
  int status = -1;
  return nvml.Call<int (*)(Device, Device, int, int*)>("nvmlDeviceGetP2PStatus", from, to, how,
                                                       &status) == kSuccess &&
         status == 0;
}

}  // namespace

GpuMachine InspectGpus() {
  GpuMachine machine;
  const Nvml nvml;
  if (!nvml.installed()) {
    machine.why = "no NVIDIA driver is installed";
    return machine;
  }
  if (!nvml.started()) {
    machine.why = "the NVIDIA driver does not answer";
    return machine;
  }
  char driver[kTextBytes] = {};
  nvml.Call<int (*)(char*, unsigned)>("nvmlSystemGetDriverVersion", driver, kTextBytes);
  machine.driver = driver;
  unsigned count = 0;
  nvml.Call<int (*)(unsigned*)>("nvmlDeviceGetCount_v2", &count);
  std::vector<Device> devices;
  for (unsigned i = 0; i < count; ++i) {
    Device device = nullptr;
    if (nvml.Call<int (*)(unsigned, Device*)>("nvmlDeviceGetHandleByIndex_v2", i, &device) !=
        kSuccess) {
      continue;
    }
    devices.push_back(device);
    machine.gpus.push_back(Inspect(nvml, static_cast<int>(i), device));
  }
  if (machine.gpus.empty()) machine.why = "the NVIDIA driver sees no GPU";
  for (Device from : devices) {
    machine.by_nvlink.emplace_back();
    machine.by_peer.emplace_back();
    for (Device to : devices) {
      machine.by_nvlink.back().push_back(from == to || Connected(nvml, from, to, kP2pNvlink));
      machine.by_peer.back().push_back(from == to || Connected(nvml, from, to, kP2pRead));
    }
  }
  return machine;
}

}  // namespace switchyard::agent
