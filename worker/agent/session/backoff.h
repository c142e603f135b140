// When to dial again: full jitter under a doubling limit, so that agents do not come back in step.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace switchyard::agent {

class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds last, uint32_t seed)
      : first_(first), last_(last), limit_(first), random_(seed) {}

  // Uniform in [0, limit]; the limit doubles up to `last`.
  std::chrono::milliseconds Next() {
    std::uniform_int_distribution<int64_t> uniform(0, limit_.count());
    const std::chrono::milliseconds delay(uniform(random_));
    limit_ = std::min(limit_ * 2, last_);
    return delay;
  }
  void Reset() { limit_ = first_; }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds last_;
  std::chrono::milliseconds limit_;
  std::mt19937 random_;
};

}  // namespace switchyard::agent
