#include "worker/trainer/cuda/trace.h"

#include <torch/csrc/autograd/profiler_kineto.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "worker/trainer/cuda/cuda_check.h"

namespace switchyard::trainer::cuda {
namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

constexpr size_t kNameWidth = 110;
constexpr uint8_t kRangeOnDevice = 2;  // libkineto::ActivityType::GPU_USER_ANNOTATION

struct Total {
  uint64_t nanoseconds = 0;
  int calls = 0;
};

}  // namespace

void StartTrace() {
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  const std::set<ActivityType> activities = {ActivityType::CPU, ActivityType::CUDA};
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities, {at::RecordScope::USER_SCOPE});
}

std::string StopTrace(const std::string& path) {
  Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  const auto result = profiler::disableProfiler();
  result->save(path);
  std::map<std::string, Total> totals;
  uint64_t all = 0;
  for (const profiler::KinetoEvent& event : result->events()) {
    // Ranges of the host appear on the device too.
    if (event.deviceType() != c10::DeviceType::CUDA || event.activityType() == kRangeOnDevice) {
      continue;
    }
    Total& total = totals[event.name()];
    total.nanoseconds += event.durationNs();
    ++total.calls;
    all += event.durationNs();
  }
  std::vector<std::pair<std::string, Total>> sorted(totals.begin(), totals.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    return a.second.nanoseconds > b.second.nanoseconds;
  });
  std::string table =
      absl::StrFormat("%9s %6s  kernel (%.2f ms in all)\n", "ms", "calls", 1e-6 * all);
  for (const auto& [name, total] : sorted) {
    absl::StrAppendFormat(&table, "%9.3f %6d  %s\n", 1e-6 * total.nanoseconds, total.calls,
                          name.substr(0, kNameWidth));
  }
  return table;
}

}  // namespace switchyard::trainer::cuda
