// Where the time of a step goes, by phase.
//
// One phase runs at a time: a scope inside another takes its time away from the outer one, so the
// phases of a step add up to no more than the step. Modules name phases through
// StepContext::phases and do not know how time is taken: every change of phase is a mark on the
// device's stream (on CPU of the host's clock), read when the step is over. On a GPU a phase is
// thus what the main stream does in it; work beside it on another stream counts where the main one
// waits for it.
#pragma once

#include <ATen/record_function.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/trainer/model/time_mark.h"

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
  // Room for the marks of a step of `micro_batches` of a model with `moe_layers`, made here, so
  // that a step allocates nothing. Where that would be more than kMaxMarks, dispatch and combine
  // are not told from the phases around them.
  PhaseTimer(at::Device device, int64_t micro_batches, int64_t moe_layers);
  static constexpr int64_t kMaxMarks = 4096;

  // A step begins, in no phase.
  void Begin();
  // `phase` runs from now on. Returns the one that ran so far.
  StepPhase Enter(StepPhase phase);
  // The step is over.
  void End();

  // Of the newest step; they wait for its end.
  double TotalSeconds() const { return end().SecondsSince(marks_.front()); }
  // Of every phase that has run, by name; none when the step had more marks than planned.
  std::map<std::string, double> Seconds() const;
  const TimeMark& end() const { return marks_[phases_.size()]; }

 private:
  bool layers_;  // dispatch and combine are phases of their own
  bool overrun_ = false;
  StepPhase running_ = StepPhase::kOther;
  std::vector<TimeMark> marks_;    // mark i begins phases_[i], mark i + 1 ends it
  std::vector<StepPhase> phases_;  // of the step so far
};

// As docs/protocol.md names it.
const char* PhaseName(StepPhase phase);

// A phase until the end of a block; then the one before goes on. Also a range of traces and
// profilers, which is all of it when `timer` is null.
class PhaseScope {
 public:
  PhaseScope(PhaseTimer* timer, StepPhase phase)
      : range_(at::RecordScope::USER_SCOPE),
        timer_(timer),
        before_(timer == nullptr ? StepPhase::kOther : timer->Enter(phase)) {
    if (range_.isActive()) range_.before(PhaseName(phase));
  }
  ~PhaseScope() {
    if (timer_ != nullptr) timer_->Enter(before_);
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  at::RecordFunction range_;
  PhaseTimer* timer_;
  StepPhase before_;
};

}  // namespace switchyard::trainer
