#include "worker/agent/inventory/nvml.h"

#include <dlfcn.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/log.h"

namespace switchyard::agent {
namespace {

// The part of NVML's stable C interface that is needed; its header is not installed with the
// driver.
struct Memory {
  unsigned long long total, free, used;
};
using Device = void*;
constexpr int kSuccess = 0;
constexpr unsigned kTextBytes = 96;

template <typename Function>
bool Load(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  return *function != nullptr;
}

}  // namespace

std::vector<Gpu> FindGpus() {
  std::vector<Gpu> gpus;
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    log::Info("gpu.none", {{"reason", "libnvidia-ml.so.1 is not installed"}});
    return gpus;
  }
  int (*init)() = nullptr;
  int (*shutdown)() = nullptr;
  int (*count_of)(unsigned*) = nullptr;
  int (*device_of)(unsigned, Device*) = nullptr;
  int (*uuid_of)(Device, char*, unsigned) = nullptr;
  int (*name_of)(Device, char*, unsigned) = nullptr;
  int (*memory_of)(Device, Memory*) = nullptr;
  const bool loaded = Load(library, "nvmlInit_v2", &init) &&
                      Load(library, "nvmlShutdown", &shutdown) &&
                      Load(library, "nvmlDeviceGetCount_v2", &count_of) &&
                      Load(library, "nvmlDeviceGetHandleByIndex_v2", &device_of) &&
                      Load(library, "nvmlDeviceGetUUID", &uuid_of) &&
                      Load(library, "nvmlDeviceGetName", &name_of) &&
                      Load(library, "nvmlDeviceGetMemoryInfo", &memory_of);
  if (!loaded) {
    log::Warning("gpu.none",
                 {{"reason", "libnvidia-ml.so.1 lacks a function; the driver is too old"}});
  } else if (const int code = init(); code != kSuccess) {
    log::Warning("gpu.none",
                 {{"reason", "the NVIDIA driver does not answer"}, {"nvml_code", code}});
  } else {
    unsigned count = 0;
    if (count_of(&count) != kSuccess) count = 0;
    for (unsigned i = 0; i < count; ++i) {
      Device device = nullptr;
      char uuid[kTextBytes] = {}, name[kTextBytes] = {};
      Memory memory{};
      if (device_of(i, &device) != kSuccess || uuid_of(device, uuid, kTextBytes) != kSuccess ||
          name_of(device, name, kTextBytes) != kSuccess || memory_of(device, &memory) != kSuccess) {
        log::Warning("gpu.skipped",
                     {{"index", i}, {"reason", "the driver reports an error for it"}});
        continue;
      }
      gpus.push_back({uuid, name, static_cast<int64_t>(memory.total)});
    }
    shutdown();
  }
  dlclose(library);
  return gpus;
}

std::vector<Gpu> VisibleGpus(const std::vector<Gpu>& gpus, const char* list) {
  if (list == nullptr) return gpus;
  std::vector<Gpu> visible;
  for (const absl::string_view word : absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    size_t index = 0;
    const bool number = absl::SimpleAtoi(word, &index);
    const auto found = std::find_if(gpus.begin(), gpus.end(), [&](const Gpu& gpu) {
      return number ? index == static_cast<size_t>(&gpu - gpus.data())
                    : absl::StartsWith(gpu.uuid, absl::StripAsciiWhitespace(word));
    });
    if (found == gpus.end()) break;
    visible.push_back(*found);
  }
  return visible;
}

}  // namespace switchyard::agent
