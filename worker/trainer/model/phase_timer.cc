#include "worker/trainer/model/phase_timer.h"

#include <array>

namespace switchyard::trainer {
namespace {

constexpr std::array<const char*, 9> kNames = {
    "other", "data",  "forward", "backward", "dispatch", "combine", "reduce_gradients",
    "agree", "update"};
// Changes of phase: into and out of dispatch and combine, forward and backward, and of a dispatch
// that the backward repeats; into and out of forward and backward; and those of a step around its
// micro-batches.
constexpr int64_t kMarksOfLayer = 10;
constexpr int64_t kMarksOfMicroBatch = 6;
constexpr int64_t kMarksOfStep = 16;

int64_t Marks(int64_t micro_batches, int64_t layers) {
  return kMarksOfStep + micro_batches * (kMarksOfMicroBatch + layers * kMarksOfLayer);
}

}  // namespace

const char* PhaseName(StepPhase phase) { return kNames[static_cast<size_t>(phase)]; }

PhaseTimer::PhaseTimer(at::Device device, int64_t micro_batches, int64_t moe_layers)
    : layers_(Marks(micro_batches, moe_layers) <= kMaxMarks) {
  const auto room = static_cast<size_t>(Marks(micro_batches, layers_ ? moe_layers : 0));
  marks_.reserve(room);
  for (size_t i = 0; i < room; ++i) marks_.emplace_back(device);
  phases_.reserve(room);
}

void PhaseTimer::Begin() {
  phases_.clear();
  overrun_ = false;
  running_ = StepPhase::kOther;
  phases_.push_back(running_);
  marks_.front().Record();
}

StepPhase PhaseTimer::Enter(StepPhase phase) {
  const StepPhase before = running_;
  const bool of_layer = phase == StepPhase::kDispatch || phase == StepPhase::kCombine;
  if (phase == running_ || (of_layer && !layers_)) return before;
  running_ = phase;
  if (phases_.size() + 1 == marks_.size()) {
    overrun_ = true;
    return before;
  }
  marks_[phases_.size()].Record();
  phases_.push_back(phase);
  return before;
}

void PhaseTimer::End() {
  running_ = StepPhase::kOther;
  marks_[phases_.size()].Record();
}

std::map<std::string, double> PhaseTimer::Seconds() const {
  std::map<std::string, double> seconds;
  if (overrun_) return seconds;
  for (size_t i = 0; i < phases_.size(); ++i) {
    if (phases_[i] == StepPhase::kOther) continue;
    seconds[PhaseName(phases_[i])] += marks_[i + 1].SecondsSince(marks_[i]);
  }
  return seconds;
}

}  // namespace switchyard::trainer
