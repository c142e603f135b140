// The coordinator's core against a world of faults, many seeds. A failing seed is printed; it fails
// again with SWITCHYARD_SIMULATION_SEED=N.
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "coordinator/job/job_state.h"
#include "coordinator/reconcile/hang_detector.h"
#include "tests/coordinator/simulation/sim_world.h"

namespace switchyard::coordinator::simulation {
namespace {

using std::chrono::milliseconds;

constexpr int kSeeds = 300;  // or SWITCHYARD_SIMULATION_SEEDS

class SimulationTest : public testing::Test {
 protected:
  void SetUp() override { log::SetMinimumLevel(static_cast<log::Level>(4)); }
};

// Three nodes of two slots; jobs of one, two, four and three ranks; a minute of faults, then peace.
void RunSeed(uint64_t seed, std::map<std::string, int>& totals) {
  SimWorld world(seed, 3);
  std::map<std::string, std::string> uids;
  const std::pair<int, int> kJobs[] = {{2, 40}, {1, 25}, {4, 30}, {3, 20}};
  for (int round = 0; round < 12; ++round) {
    // Clients repeat every request: one job comes of it, whatever happened to the answer.
    for (int i = 0; i < 4; ++i) {
      const std::string id = absl::StrCat("job", i);
      const std::string uid = world.Create(id, kJobs[i].first, kJobs[i].second, i == 3 ? 0 : 5);
      if (uid.empty()) continue;
      if (!uids[id].empty() && uids[id] != uid) ADD_FAILURE() << id << " became two jobs";
      uids[id] = uid;
    }
    world.Run(milliseconds(5000), {0.15});
  }
  world.Heal();
  world.Run(milliseconds(600000 - 60000), {0});
  world.CheckAtEnd();
  EXPECT_TRUE(world.violations().empty())
      << "seed " << seed << ":\n  " << absl::StrJoin(world.violations(), "\n  ");
  for (const auto& [name, count] : world.counters()) totals[name] += count;
}

TEST_F(SimulationTest, KeepsItsPromisesUnderRandomFaults) {
  std::map<std::string, int> totals;
  if (const char* seed = std::getenv("SWITCHYARD_SIMULATION_SEED")) {
    RunSeed(std::strtoull(seed, nullptr, 10), totals);
    return;
  }
  const char* wanted = std::getenv("SWITCHYARD_SIMULATION_SEEDS");
  const int seeds = wanted == nullptr ? kSeeds : std::atoi(wanted);
  for (int seed = 1; seed <= seeds && !HasFailure(); ++seed) RunSeed(seed, totals);
  // The faults must really have happened, and not have prevented everything.
  EXPECT_GT(totals["SUCCEEDED"], seeds);
  EXPECT_GT(totals["CANCELLED"], 0);
  for (int kind = 0; kind < 11; ++kind) EXPECT_GT(totals[absl::StrCat("fault", kind)], seeds / 10);
}

TEST_F(SimulationTest, WithoutFaultsEveryJobSucceedsInOneAttempt) {
  SimWorld world(7, 3);
  for (int i = 0; i < 4; ++i) world.Create(absl::StrCat("job", i), 2, 10, 3);
  world.Run(milliseconds(120000), {0});
  world.CheckAtEnd();
  EXPECT_EQ(world.violations(), std::vector<std::string>());
  for (const auto& [uid, record] : world.core().context().book.jobs()) {
    EXPECT_EQ(record.job().state(), v1::JOB_STATE_SUCCEEDED);
    EXPECT_EQ(record.job().epoch(), 1);
  }
}

std::set<std::string> NodesOfNewestAttempt(SimWorld& world, const std::string& uid) {
  std::set<std::string> nodes;
  const v1::Job& job = world.core().context().book.Find(uid)->job();
  for (const auto& placement : job.attempts().rbegin()->placements())
    nodes.insert(placement.node());
  return nodes;
}

TEST_F(SimulationTest, ANodeThatFailedAnAttemptIsAvoidedForAWhileWhereOthersHaveRoom) {
  SimWorld world(3, 3);
  const std::string uid = world.Create("job", 2, 100000, 5);
  world.Run(milliseconds(20000), {0});
  std::set<std::string> failed;
  for (int i = 0; i < 2; ++i) {
    failed.insert(world.FailRank0(uid, "DEVICE"));
    world.Run(milliseconds(30000), {0});
    for (const std::string& node : NodesOfNewestAttempt(world, uid)) {
      EXPECT_FALSE(failed.contains(node)) << "attempt " << i + 2 << " is on " << node;
    }
  }
  ASSERT_EQ(failed.size(), 2u);
  // No third place: back to one of the two rather than not at all.
  const std::string last = world.FailRank0(uid, "DEVICE");
  EXPECT_FALSE(failed.contains(last));
  world.Run(milliseconds(30000), {0});
  const auto& record = *world.core().context().book.Find(uid);
  EXPECT_EQ(record.job().state(), v1::JOB_STATE_RUNNING);
  EXPECT_EQ(record.avoided_nodes_size(), 3);
  // Long after, nothing is held against any node.
  world.Run(milliseconds(900000), {0});
  failed = {world.FailRank0(uid, "DEVICE")};
  world.Run(milliseconds(30000), {0});
  EXPECT_EQ(world.core().context().book.Find(uid)->avoided_nodes_size(), 1);
  EXPECT_EQ(world.violations(), std::vector<std::string>());
}

TEST_F(SimulationTest, AnAttemptThatHangsIsEndedAndStartedAgain) {
  SimWorld world(5, 3);
  const std::string uid = world.Create("job", 4, 200, 5);
  world.Run(milliseconds(30000), {0});
  ASSERT_EQ(world.core().context().book.Find(uid)->job().state(), v1::JOB_STATE_RUNNING);
  world.Hang(uid);
  world.Run(milliseconds(50000), {0});
  EXPECT_EQ(world.core().context().book.Find(uid)->job().epoch(), 1) << "within the limit";
  world.Run(milliseconds(400000), {0});
  const v1::Job& job = world.core().context().book.Find(uid)->job();
  EXPECT_EQ(job.state(), v1::JOB_STATE_SUCCEEDED);
  ASSERT_EQ(job.attempts_size(), 2);
  EXPECT_EQ(job.attempts(0).outcome().code(), "HANG");
  EXPECT_NE(job.attempts(0).outcome().message().find("(limit 60 s) after step"), std::string::npos)
      << job.attempts(0).outcome().message();
  EXPECT_GT(job.attempts(1).resumed_from_step(), 0);
  world.CheckAtEnd();
  EXPECT_EQ(world.violations(), std::vector<std::string>());
}

TEST_F(SimulationTest, TimeInWhichTheCoordinatorStoodStillIsNoHang) {
  SimWorld world(6, 2);
  const std::string uid = world.Create("job", 4, 2000, 0);
  world.Run(milliseconds(30000), {0});
  for (int i = 0; i < 10; ++i) {
    world.Freeze(milliseconds(300000));
    world.Run(milliseconds(5000), {0});
  }
  EXPECT_EQ(world.core().context().book.Find(uid)->job().epoch(), 1);
}

TEST_F(SimulationTest, APauseThatHangsEndsPaused) {
  SimWorld world(8, 2);
  const std::string uid = world.Create("job", 4, 2000, 5);
  world.Run(milliseconds(30000), {0});
  world.Hang(uid);
  world.Pause(uid);
  world.Run(milliseconds(120000), {0});
  const v1::Job& job = world.core().context().book.Find(uid)->job();
  EXPECT_EQ(job.state(), v1::JOB_STATE_PAUSED) << StateName(job.state());
  EXPECT_EQ(world.LiveProcesses(uid), 0);
}

TEST(SilenceLimitTest, FollowsTheSlowerOfPlanAndMeasurement) {
  using std::chrono::seconds;
  const auto floor = seconds(180);
  v1::Plan plan;
  EXPECT_EQ(SilenceLimit(plan, v1::JOB_PHASE_TRAINING, 0, floor), floor);
  plan.set_global_batch_sequences(64);
  plan.set_sequence_length(4096);
  plan.set_tokens_per_second(4096);  // 64 s a step
  EXPECT_EQ(SilenceLimit(plan, v1::JOB_PHASE_TRAINING, 0, floor), seconds(1280));
  EXPECT_EQ(SilenceLimit(plan, v1::JOB_PHASE_EVALUATING, 100, floor), seconds(2000));
  plan.set_checkpoint_bytes(int64_t{340} << 30);
  EXPECT_GT(SilenceLimit(plan, v1::JOB_PHASE_SAVING, 0, floor), seconds(7000));
}

}  // namespace
}  // namespace switchyard::coordinator::simulation
