#include "worker/trainer/model/phase_timer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <string>
#include <thread>

namespace switchyard::trainer {
namespace {

constexpr double kSlept = 0.02;

void Sleep() { std::this_thread::sleep_for(std::chrono::duration<double>(kSlept)); }

// What the modules of one layer do in a micro-batch.
void RunMicroBatch(PhaseTimer& timer, int layers) {
  const PhaseScope forward(&timer, StepPhase::kForward);
  for (int i = 0; i < layers; ++i) {
    { const PhaseScope dispatch(&timer, StepPhase::kDispatch); }
    { const PhaseScope combine(&timer, StepPhase::kCombine); }
  }
  const PhaseScope backward(&timer, StepPhase::kBackward);
  for (int i = 0; i < layers; ++i) {
    { const PhaseScope dispatch(&timer, StepPhase::kDispatch); }
    { const PhaseScope combine(&timer, StepPhase::kCombine); }
  }
}

TEST(PhaseTimerTest, AScopeTakesItsTimeAwayFromTheOneAroundIt) {
  PhaseTimer timer(at::kCPU, 1, 1);
  timer.Begin();
  {
    const PhaseScope forward(&timer, StepPhase::kForward);
    Sleep();
    {
      const PhaseScope dispatch(&timer, StepPhase::kDispatch);
      Sleep();
    }
    Sleep();
  }
  Sleep();  // in no phase
  timer.End();
  const std::map<std::string, double> seconds = timer.Seconds();
  ASSERT_EQ(seconds.size(), 2u);
  EXPECT_GE(seconds.at("forward"), 2 * kSlept);
  EXPECT_GE(seconds.at("dispatch"), kSlept);
  EXPECT_GE(timer.TotalSeconds(), seconds.at("forward") + seconds.at("dispatch") + kSlept);
}

TEST(PhaseTimerTest, AStepForgetsTheOneBefore) {
  PhaseTimer timer(at::kCPU, 1, 0);
  timer.Begin();
  timer.Enter(StepPhase::kUpdate);
  Sleep();
  timer.End();
  timer.Begin();
  timer.Enter(StepPhase::kAgree);
  timer.End();
  EXPECT_EQ(timer.Seconds().count("update"), 0u);
  EXPECT_LT(timer.TotalSeconds(), kSlept);
}

TEST(PhaseTimerTest, HasRoomForEveryMarkOfTheStepItWasMadeFor) {
  constexpr int kLayers = 48, kMicroBatches = 8;
  PhaseTimer timer(at::kCPU, kMicroBatches, kLayers);
  for (int step = 0; step < 2; ++step) {
    timer.Begin();
    timer.Enter(StepPhase::kData);
    for (int i = 0; i < kMicroBatches; ++i) RunMicroBatch(timer, kLayers);
    for (StepPhase phase : {StepPhase::kReduceGradients, StepPhase::kAgree, StepPhase::kUpdate}) {
      timer.Enter(phase);
    }
    timer.End();
    EXPECT_EQ(timer.Seconds().size(), 8u);
  }
}

TEST(PhaseTimerTest, AStepLongerThanPlannedTellsItsTotalOnly) {
  PhaseTimer timer(at::kCPU, 1, 4);
  timer.Begin();
  for (int i = 0; i < 3; ++i) RunMicroBatch(timer, 4);
  Sleep();
  timer.End();
  EXPECT_TRUE(timer.Seconds().empty());
  EXPECT_GE(timer.TotalSeconds(), kSlept);
  timer.Begin();
  RunMicroBatch(timer, 4);
  timer.End();
  EXPECT_EQ(timer.Seconds().size(), 4u);
}

TEST(PhaseTimerTest, AStepWithTooManyMarksCountsDispatchAsForwardAndBackward) {
  constexpr int kMicroBatches = PhaseTimer::kMaxMarks / 8;
  PhaseTimer timer(at::kCPU, kMicroBatches, 1);
  timer.Begin();
  for (int i = 0; i < kMicroBatches; ++i) RunMicroBatch(timer, 1);
  timer.End();
  const std::map<std::string, double> seconds = timer.Seconds();
  EXPECT_EQ(seconds.size(), 2u);
  EXPECT_EQ(seconds.count("forward") + seconds.count("backward"), 2u);
}

}  // namespace
}  // namespace switchyard::trainer
