#include "coordinator/schedule/scheduler.h"

#include <gmock/gmock.h>

namespace switchyard::coordinator {
namespace {

using testing::ElementsAre;

std::vector<SchedulerSlot> Nodes(int nodes, int slots, const std::string& device = "cpu",
                                 const std::string& domain = "d") {
  std::vector<SchedulerSlot> result;
  for (int node = 0; node < nodes; ++node) {
    for (int index = 0; index < slots; ++index) {
      result.push_back({device + std::to_string(node), index, device, 100, domain, true});
    }
  }
  return result;
}

QueuedJob Job(const std::string& uid, int ranks, int64_t sequence, int32_t priority = 0,
              const std::string& device = "cpu") {
  QueuedJob job;
  job.uid = uid;
  job.ranks = ranks;
  job.create_sequence = sequence;
  job.priority = priority;
  job.device = device;
  return job;
}

std::vector<std::string> Admitted(const ScheduleResult& result) {
  std::vector<std::string> uids;
  for (const auto& admission : result.admitted) uids.push_back(admission.uid);
  return uids;
}

TEST(SchedulerTest, OrdersByPriorityThenFirstIn) {
  const auto result =
      Schedule({Job("late", 2, 3), Job("early", 2, 1), Job("urgent", 2, 4, 10)}, Nodes(2, 2));
  EXPECT_THAT(Admitted(result), ElementsAre("urgent", "early"));
  EXPECT_THAT(result.queue, ElementsAre("late"));
}

TEST(SchedulerTest, ALargeJobThatWaitsIsNotStarvedBySmallerOnes) {
  auto slots = Nodes(2, 2);
  slots[0].free = false;
  const auto result = Schedule({Job("large", 4, 1), Job("small", 1, 2)}, slots);
  EXPECT_TRUE(result.admitted.empty());
  EXPECT_THAT(result.queue, ElementsAre("large", "small"));
  EXPECT_TRUE(result.impossible.empty());
}

TEST(SchedulerTest, AnImpossibleJobHoldsNobodyBack) {
  const auto result = Schedule({Job("huge", 9, 1), Job("small", 1, 2)}, Nodes(2, 2));
  EXPECT_THAT(Admitted(result), ElementsAre("small"));
  EXPECT_THAT(result.impossible, ElementsAre("huge"));
}

TEST(SchedulerTest, AWaitingJobHoldsBackOnlyItsKindOfDevice) {
  auto slots = Nodes(1, 2);
  slots[0].free = false;
  for (auto& slot : Nodes(1, 2, "cuda")) slots.push_back(slot);
  const auto result = Schedule({Job("cpu", 2, 1), Job("gpu", 2, 2, 0, "cuda")}, slots);
  EXPECT_THAT(Admitted(result), ElementsAre("gpu"));
}

TEST(SchedulerTest, AJobThatBacksOffKeepsItsPlaceButHoldsNobodyBack) {
  auto waiting = Job("waiting", 2, 1);
  waiting.backing_off = true;
  const auto result = Schedule({waiting, Job("next", 2, 2)}, Nodes(1, 2));
  EXPECT_THAT(Admitted(result), ElementsAre("next"));
  EXPECT_THAT(result.queue, ElementsAre("waiting"));
}

TEST(SchedulerTest, CpuRanksShareOneMemoryDomain) {
  auto slots = Nodes(1, 2, "cpu", "one");
  slots.push_back({"other", 0, "cpu", 100, "two", true});
  slots.push_back({"other", 1, "cpu", 100, "two", true});
  EXPECT_THAT(Schedule({Job("j", 4, 1)}, slots).impossible, ElementsAre("j"));
  EXPECT_THAT(Admitted(Schedule({Job("j", 2, 1)}, slots)), ElementsAre("j"));
}

TEST(SchedulerTest, PromisesNoMoreMemoryThanTheMachineHasLeft) {
  auto first = Job("first", 1, 1), second = Job("second", 1, 2);
  first.slot_bytes = second.slot_bytes = 60;
  const auto result = Schedule({first, second}, Nodes(2, 2), {{"d", 100}});
  EXPECT_THAT(Admitted(result), ElementsAre("first"));
  EXPECT_THAT(result.queue, ElementsAre("second"));
  EXPECT_TRUE(result.impossible.empty()) << "it waits for what the first one holds";
  EXPECT_THAT(Admitted(Schedule({first, second}, Nodes(2, 2), {{"d", 120}, {"other", 0}})),
              ElementsAre("first", "second"));
}

TEST(SchedulerTest, LeavesSlotsWithTooLittleMemoryAlone) {
  auto job = Job("j", 2, 1);
  job.slot_bytes = 50;
  auto slots = Nodes(1, 3);
  slots[0].memory_bytes = 40;
  const auto result = Schedule({job}, slots);
  ASSERT_EQ(result.admitted.size(), 1);
  EXPECT_THAT(result.admitted[0].placements,
              ElementsAre(Placement{0, "cpu0", 1}, Placement{1, "cpu0", 2}));
}

TEST(SchedulerTest, RanksReturnToTheirSlots) {
  auto job = Job("j", 3, 1);
  job.previous = {{0, "cpu1", 1}, {1, "cpu1", 0}, {2, "cpu0", 0}};
  auto slots = Nodes(3, 2);
  slots[0].free = false;  // rank 2 must move
  const auto result = Schedule({job}, slots);
  ASSERT_EQ(result.admitted.size(), 1);
  EXPECT_EQ(result.admitted[0].placements[0], (Placement{0, "cpu1", 1}));
  EXPECT_EQ(result.admitted[0].placements[1], (Placement{1, "cpu1", 0}));
}

TEST(SchedulerTest, TakesTheNodeThatFitsBest) {
  auto slots = Nodes(2, 4);
  slots[0].free = slots[1].free = false;  // two are left on the first node
  const auto result = Schedule({Job("j", 2, 1)}, slots);
  ASSERT_EQ(result.admitted.size(), 1);
  EXPECT_THAT(result.admitted[0].placements,
              ElementsAre(Placement{0, "cpu0", 2}, Placement{1, "cpu0", 3}));
}

TEST(SchedulerTest, AnExpertParallelGroupNeverSpansGpuNodes) {
  auto job = Job("j", 4, 1, 0, "cuda");
  job.expert_parallel = 4;
  EXPECT_THAT(Schedule({job}, Nodes(2, 3, "cuda")).impossible, ElementsAre("j"));
  job.expert_parallel = 2;
  const auto result = Schedule({job}, Nodes(2, 3, "cuda"));
  ASSERT_EQ(result.admitted.size(), 1);
  EXPECT_THAT(result.admitted[0].placements,
              ElementsAre(Placement{0, "cuda0", 0}, Placement{1, "cuda0", 1},
                          Placement{2, "cuda1", 0}, Placement{3, "cuda1", 1}));
}

TEST(SchedulerTest, GpuRanksReturnToTheirSlotsOnlyAllTogether) {
  auto job = Job("j", 4, 1, 0, "cuda");
  job.expert_parallel = 2;
  job.previous = {{0, "cuda1", 1}, {1, "cuda1", 2}, {2, "cuda0", 1}, {3, "cuda0", 0}};
  auto slots = Nodes(2, 3, "cuda");
  const auto before = Schedule({job}, slots);
  ASSERT_EQ(before.admitted.size(), 1);
  EXPECT_EQ(before.admitted[0].placements, job.previous);

  slots[0].free = false;  // rank 3 must move, and its group lies on one node all the same
  const auto moved = Schedule({job}, slots);
  ASSERT_EQ(moved.admitted.size(), 1);
  const auto& placements = moved.admitted[0].placements;
  EXPECT_EQ(placements[0].node, placements[1].node);
  EXPECT_EQ(placements[2].node, placements[3].node);
}

TEST(SchedulerTest, AnAvoidedNodeIsUsedOnlyWhenNoOthersHaveRoom) {
  for (const std::string device : {"cpu", "cuda"}) {
    auto job = Job("again", 2, 1, 0, device);
    job.expert_parallel = 2;
    job.previous = {{0, device + "0", 0}, {1, device + "0", 1}};
    job.avoided = {device + "0"};
    auto slots = Nodes(2, 2, device);
    auto result = Schedule({job}, slots);
    ASSERT_EQ(result.admitted.size(), 1u);
    for (const auto& placement : result.admitted[0].placements) {
      EXPECT_EQ(placement.node, device + "1");
    }
    slots[3].free = false;
    result = Schedule({job}, slots);
    ASSERT_EQ(result.admitted.size(), 1u) << "it does not wait for the others";
    EXPECT_EQ(result.admitted[0].placements, job.previous);
    // What another job may use there is not touched.
    result = Schedule({job, Job("other", 2, 2, 0, device)}, Nodes(2, 2, device));
    EXPECT_EQ(result.admitted.size(), 2u);
  }
}

}  // namespace
}  // namespace switchyard::coordinator
