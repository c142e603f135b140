#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "coordinator/history/log_store.h"
#include "coordinator/history/metrics_store.h"
#include "coordinator/history/step_aggregator.h"

namespace switchyard::coordinator {
namespace {

trainer::v1::Step StepOf(int64_t step, double seconds = 1, int64_t tokens = 100) {
  trainer::v1::Step line;
  line.set_step(step);
  line.set_step_seconds(seconds);
  line.set_tokens(tokens);
  return line;
}

class HistoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "switchyard-history.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    job_.set_uid("u");
    job_.set_name("n");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  v1::StepSample Sample(int64_t step, int64_t epoch = 1) {
    v1::StepSample sample;
    sample.set_step(step);
    sample.set_epoch(epoch);
    sample.mutable_time()->set_seconds(1000 + step);
    return sample;
  }
  std::string directory_;
  v1::Job job_;
};

TEST(StepAggregatorTest, TellsAStepWhenAllRanksReportedIt) {
  StepAggregator aggregator(2, 1);
  EXPECT_TRUE(aggregator.Add(1, StepOf(1, 4)).empty());
  const auto told = aggregator.Add(0, StepOf(1, 2));
  ASSERT_EQ(told.size(), 1);
  EXPECT_DOUBLE_EQ(told[0].step_seconds(), 4);
  EXPECT_DOUBLE_EQ(told[0].tokens_per_second(), 25);
  EXPECT_TRUE(aggregator.Add(0, StepOf(1)).empty()) << "told once";
}

TEST(StepAggregatorTest, AMissingLineDelaysAStepByTwo) {
  StepAggregator aggregator(2, 1);
  EXPECT_TRUE(aggregator.Add(0, StepOf(1)).empty());
  EXPECT_TRUE(aggregator.Add(0, StepOf(2)).empty());
  const auto told = aggregator.Add(0, StepOf(3));
  ASSERT_EQ(told.size(), 1);
  EXPECT_EQ(told[0].step(), 1);
}

TEST(StepAggregatorTest, JoinsAHeldOutLossBeforeOrAfterItsStep) {
  StepAggregator aggregator(1, 1);
  trainer::v1::Eval eval;
  eval.set_step(1);
  eval.set_loss(3);
  EXPECT_TRUE(aggregator.AddEval(eval).empty());
  EXPECT_DOUBLE_EQ(aggregator.Add(0, StepOf(1))[0].eval_loss(), 3);
  aggregator.Add(0, StepOf(2));
  eval.set_step(2);
  const auto again = aggregator.AddEval(eval);
  ASSERT_EQ(again.size(), 1);
  EXPECT_EQ(again[0].step(), 2);
  EXPECT_DOUBLE_EQ(again[0].eval_loss(), 3);
}

TEST_F(HistoryTest, MetricsKeepTheNewestSampleOfAStepAndThinEvenly) {
  auto store = *MetricsStore::Open(directory_ + "/metrics.db");
  store->OnJobChanged(job_);
  for (int step = 1; step <= 100; ++step) store->OnStep(job_, Sample(step));
  const int64_t seen = store->LastId();
  store->OnStep(job_, Sample(100, 2));
  const auto all = *store->Query("u", 0, -1, 1000);
  ASSERT_EQ(all.size(), 100);
  EXPECT_EQ(all.back().epoch(), 2);
  const auto thin = *store->Query("u", 0, -1, 5);
  ASSERT_EQ(thin.size(), 5);
  EXPECT_EQ(thin.front().step(), 1);
  EXPECT_EQ(thin[2].step(), 50);
  EXPECT_EQ(thin.back().step(), 100);
  EXPECT_EQ(store->Query("u", 90, -1, 1000)->size(), 10);
  EXPECT_EQ(store->Query("u", 0, 1095.5, 1000)->size(), 5);
  const auto newer = *store->After("u", seen, 10);
  ASSERT_EQ(newer.size(), 1);
  EXPECT_EQ(newer[0].sample.epoch(), 2);
  store->OnJobRemoved("n");
  EXPECT_TRUE(store->Query("u", 0, -1, 10)->empty());
}

TEST_F(HistoryTest, AFollowerOfTheNewestIdMissesNoStep) {
  constexpr int kSteps = 3000;
  auto store = *MetricsStore::Open(directory_ + "/metrics.db");
  std::thread recorder([&] {
    for (int step = 1; step <= kSteps; ++step) store->OnStep(job_, Sample(step));
  });
  // As a watcher does it: what was recorded up to the newest id but is not of this job is skipped.
  int64_t seen = 0;
  int told = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (seen < kSteps && std::chrono::steady_clock::now() < end) {
    const int64_t newest = store->LastId();
    if (newest == seen) continue;
    const auto steps = *store->After("u", seen, 64);
    told += static_cast<int>(steps.size());
    seen = steps.empty() ? newest : steps.back().id;
  }
  recorder.join();
  EXPECT_EQ(told, kSteps);
}

TEST_F(HistoryTest, ADamagedMetricsFileIsPutAside) {
  std::ofstream(directory_ + "/metrics.db") << std::string(9000, 'x');
  const auto store = MetricsStore::Open(directory_ + "/metrics.db");
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_TRUE(std::filesystem::exists(directory_ + "/metrics.db.damaged"));
}

TEST_F(HistoryTest, LogsAreWhereTheyWereOnTheNode) {
  LogStore logs(directory_);
  EXPECT_EQ(*logs.Append("u", 1, 0, 0, "one\ntwo\n"), 8);
  EXPECT_EQ(*logs.Append("u", 1, 0, 4, "two\nthree\nfo"), 16) << "an overlap is written once";
  EXPECT_EQ(*logs.Append("u", 1, 0, 0, "one\n"), 16) << "a repetition changes nothing";
  const auto slice = *logs.Read("u", 1, 0, 0, /*complete=*/false);
  EXPECT_EQ(slice.text, "one\ntwo\nthree\n") << "whole lines";
  EXPECT_EQ(logs.Read("u", 1, 0, 14, true)->text, "fo");
  EXPECT_EQ(*logs.Append("u", 1, 0, 100, "late\n"), 105);
  const auto after = *logs.Read("u", 1, 0, 16, false);
  EXPECT_TRUE(after.gap_before);
  EXPECT_EQ(after.offset, 100);
  EXPECT_EQ(after.text, "late\n");
  EXPECT_EQ(logs.TailOffset("u", 1, 0, 1), 14) << "the last line starts where the one before ended";
  EXPECT_EQ(logs.Ranks("u", 1), std::vector<int>{0});
  EXPECT_EQ(*logs.Append("u", 1, 0, INT64_MAX - 1, "far\n"), INT64_MAX) << "dropped";
  logs.Remove("u");
  EXPECT_TRUE(logs.Ranks("u", 1).empty());
  EXPECT_EQ(*logs.Append("u", 1, 0, 0, "still on its way\n"), 17);
  EXPECT_TRUE(logs.Ranks("u", 1).empty()) << "given up";
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/u"));
}

TEST_F(HistoryTest, LogsOfJobsThatAreNotInTheStoreGoAtTheNextStart) {
  for (const char* uid : {"kept", "orphan"}) {
    EXPECT_EQ(*LogStore(directory_).Append(uid, 1, 0, 0, "line\n"), 5);
  }
  LogStore logs(directory_);
  logs.RemoveAllBut({"kept"});
  EXPECT_EQ(logs.Ranks("kept", 1), std::vector<int>{0});
  EXPECT_FALSE(std::filesystem::exists(directory_ + "/orphan"));
}

}  // namespace
}  // namespace switchyard::coordinator
