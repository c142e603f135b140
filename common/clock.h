// Time as a dependency, so that control logic can be driven by a hand-turned clock in tests.
#pragma once

#include <chrono>

namespace switchyard {

class Clock {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;
  using WallTime = std::chrono::system_clock::time_point;

  virtual ~Clock() = default;
  // For every decision: leases, timeouts, back-off.
  virtual SteadyTime Steady() const = 0;
  // For people: timestamps. May jump.
  virtual WallTime Wall() const = 0;
};

class SystemClock final : public Clock {
 public:
  SteadyTime Steady() const override { return std::chrono::steady_clock::now(); }
  WallTime Wall() const override { return std::chrono::system_clock::now(); }
};

}  // namespace switchyard
