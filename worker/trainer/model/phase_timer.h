// Where the time of a step goes, by phase.
//
// One phase runs at a time: a scope inside another takes its time away from the outer one, so the
// phases of a step add up to no more than the step. Modules name phases through
// StepContext::phases and do not know how time is taken. Here by the host's clock, which is right
// where operations end before the call returns; a device that runs behind the host needs events at
// the same places, read after the step.
#pragma once

#include <array>
#include <chrono>
#include <map>
#include <string>

namespace switchyard::trainer {

// Names and meanings: docs/protocol.md.
enum class StepPhase {
  kOther = 0,  // not reported
  kData,
  kForward,
  kBackward,
  kDispatch,
  kCombine,
  kReduceGradients,
  kAgree,
  kUpdate,
};

class PhaseTimer {
 public:
  // `phase` runs from now on. Returns the one that ran so far.
  StepPhase Enter(StepPhase phase) {
    const auto now = std::chrono::steady_clock::now();
    spent_[static_cast<size_t>(running_)] += now - since_;
    since_ = now;
    entered_[static_cast<size_t>(phase)] = true;
    const StepPhase before = running_;
    running_ = phase;
    return before;
  }

  // Seconds of every phase that has run, by name. The last one must have been left.
  std::map<std::string, double> Seconds() const {
    constexpr std::array<const char*, kPhases> kNames = {
        "other", "data",  "forward", "backward", "dispatch", "combine", "reduce_gradients",
        "agree", "update"};
    std::map<std::string, double> seconds;
    for (size_t i = 1; i < kPhases; ++i) {
      if (entered_[i]) seconds[kNames[i]] = std::chrono::duration<double>(spent_[i]).count();
    }
    return seconds;
  }

 private:
  static constexpr size_t kPhases = static_cast<size_t>(StepPhase::kUpdate) + 1;

  StepPhase running_ = StepPhase::kOther;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  std::array<std::chrono::steady_clock::duration, kPhases> spent_{};
  std::array<bool, kPhases> entered_{};
};

// A phase until the end of a block; then the one before goes on. Nothing when `timer` is null.
class PhaseScope {
 public:
  PhaseScope(PhaseTimer* timer, StepPhase phase)
      : timer_(timer), before_(timer == nullptr ? StepPhase::kOther : timer->Enter(phase)) {}
  ~PhaseScope() {
    if (timer_ != nullptr) timer_->Enter(before_);
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  PhaseTimer* timer_;
  StepPhase before_;
};

}  // namespace switchyard::trainer
