// The coordinator's core against a world of faults, many seeds. A failing seed is printed; it fails again
// with SWITCHYARD_SIMULATION_SEED=N.
#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
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
  for (int kind = 0; kind < 10; ++kind) EXPECT_GT(totals[absl::StrCat("fault", kind)], seeds / 10);
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

}  // namespace
}  // namespace switchyard::coordinator::simulation
