#include "worker/trainer/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace switchyard::trainer {

double LearningRate(const ScheduleOptions& options, int64_t step) {
  if (step <= options.warmup_steps) {
    return options.peak * static_cast<double>(step) / static_cast<double>(options.warmup_steps);
  }
  if (options.schedule == "constant") return options.peak;
  const auto length =
      static_cast<double>(std::max<int64_t>(1, options.total_steps - options.warmup_steps));
  const double done =
      std::clamp(static_cast<double>(step - 1 - options.warmup_steps) / length, 0.0, 1.0);
  const double left =
      options.schedule == "linear" ? 1 - done : 0.5 * (1 + std::cos(std::numbers::pi * done));
  return options.peak * (options.min_ratio + (1 - options.min_ratio) * left);
}

}  // namespace switchyard::trainer
