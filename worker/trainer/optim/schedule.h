// The learning rate of a step: linear warm-up, then cosine, linear or constant.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard::trainer {

struct ScheduleOptions {
  std::string schedule = "cosine";  // "cosine", "linear" or "constant"
  double peak = 0;
  double min_ratio = 0;  // of the peak, at the end
  int64_t warmup_steps = 0;
  int64_t total_steps = 1;
};

// Learning rate of step `step`, 1-based. It reaches the peak at step warmup_steps, has it again in
// the step after, and decays from there; skipped steps count. `schedule` must be valid
// (trainer_config.h checks it).
double LearningRate(const ScheduleOptions& options, int64_t step);

}  // namespace switchyard::trainer
