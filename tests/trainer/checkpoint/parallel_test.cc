#include "worker/trainer/checkpoint/parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace switchyard::trainer {
namespace {

TEST(ForEachInParallelTest, DoesEveryIndexOnceAndTellsWorkersApart) {
  constexpr size_t kCount = 1000;
  constexpr int kThreads = 4;
  std::vector<std::atomic<int>> done(kCount), busy(kThreads);
  const absl::Status status = ForEachInParallel(kCount, kThreads, [&](int worker, size_t i) {
    EXPECT_EQ(busy[static_cast<size_t>(worker)]++, 0) << "two threads are worker " << worker;
    ++done[i];
    --busy[static_cast<size_t>(worker)];
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok());
  for (size_t i = 0; i < kCount; ++i) EXPECT_EQ(done[i], 1) << i;
}

TEST(ForEachInParallelTest, EndsWithTheErrorAndBeginsNoFurtherIndex) {
  std::atomic<int> begun{0};
  const absl::Status status = ForEachInParallel(100000, 3, [&](int, size_t i) {
    ++begun;
    if (i > 10) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return i == 10 ? absl::DataLossError("the tenth") : absl::OkStatus();
  });
  EXPECT_EQ(status.message(), "the tenth");
  EXPECT_LT(begun, 100000);
}

TEST(ForEachInParallelTest, ThrowsWhatTheBodyThrew) {
  const auto body = [](int, size_t i) -> absl::Status {
    if (i == 5) throw std::runtime_error("five");
    return absl::OkStatus();
  };
  EXPECT_THROW((void)ForEachInParallel(100, 4, body), std::runtime_error);
  EXPECT_TRUE(ForEachInParallel(0, 4, body).ok());
}

}  // namespace
}  // namespace switchyard::trainer
