// Commands that come twice, late or in the wrong order; attempts that must wait for others.
#include <csignal>

#include "tests/agent/support/core_driver.h"

namespace switchyard::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class FencingTest : public ::testing::Test {
 protected:
  FencingTest() { agent.Connect(); }
  void End(const std::string& job, int64_t epoch) {
    agent.Exit(job, epoch, 0, 0, SIGKILL);
    agent.Exit(job, epoch, 1, 0, SIGKILL);
    agent.Gone(job, epoch);
  }
  CoreDriver agent;
};

TEST_F(FencingTest, ARepeatedStartIsAnsweredByTheStatusAndStartsNothing) {
  agent.Run("job", 1);
  const Outputs out = agent.Start("job", 1);
  EXPECT_THAT(CoreDriver::All<StartRank>(out), IsEmpty());
  EXPECT_THAT(CoreDriver::Statuses(out), SizeIs(1));
}

TEST_F(FencingTest, ARepeatedPrepareStartsNothing) {
  agent.Prepare("job", 1);
  EXPECT_THAT(CoreDriver::All<StartPreparation>(agent.Prepare("job", 1)), IsEmpty());
}

TEST_F(FencingTest, AStartOfAnOlderEpochIsIgnored) {
  agent.Run("job", 5);
  const Outputs out = agent.Start("job", 4);
  EXPECT_THAT(CoreDriver::All<StartRank>(out), IsEmpty());
  EXPECT_THAT(CoreDriver::Signals(out, "job", 5), IsEmpty());
  EXPECT_EQ(agent.LastStatus("job", 5).state(), v1::ATTEMPT_STATE_STARTING);
}

TEST_F(FencingTest, AStartThatComesAfterItsStopStartsNothingAndIsSaidToHaveEnded) {
  EXPECT_THAT(CoreDriver::Statuses(agent.Stop("job", 3)), SizeIs(1));
  const Outputs out = agent.Start("job", 3);
  EXPECT_THAT(CoreDriver::All<StartRank>(out), IsEmpty());
  ASSERT_THAT(CoreDriver::Statuses(out), SizeIs(1));
  EXPECT_EQ(CoreDriver::Statuses(out)[0].state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 2)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 4)), SizeIs(2));
}

TEST_F(FencingTest, AStartThatComesAfterTheAcknowledgedEndStartsNothing) {
  agent.Run("job", 1);
  End("job", 1);
  EXPECT_THAT(CoreDriver::All<ForgetAttempt>(agent.Ack("job", 1)), SizeIs(1));
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 1)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartPreparation>(agent.Prepare("job", 1)), IsEmpty());
}

TEST_F(FencingTest, ARepeatedAckIsHarmlessAndAnAckOfALiveAttemptIsIgnored) {
  agent.Run("job", 1);
  EXPECT_THAT(agent.Ack("job", 1), IsEmpty());
  End("job", 1);
  agent.Ack("job", 1);
  EXPECT_THAT(agent.Ack("job", 1), IsEmpty());
}

TEST_F(FencingTest, StopMeansEveryOlderEpochTooAndIsAnsweredForExactlyItsEpoch) {
  agent.Run("job", 2);
  const Outputs out = agent.Stop("job", 4);
  EXPECT_THAT(CoreDriver::Signals(out, "job", 2), ElementsAre(StopSignal::kTerminate));
  EXPECT_EQ(agent.LastStatus("job", 4).state(),
            v1::ATTEMPT_STATE_UNSPECIFIED);  // not yet: 2 still lives
  End("job", 2);
  EXPECT_EQ(agent.LastStatus("job", 4).state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(agent.LastStatus("job", 2).state(), v1::ATTEMPT_STATE_ENDED);
}

TEST_F(FencingTest, StopOfAnOlderEpochLeavesTheNewerOneAlone) {
  agent.Run("job", 5);
  const Outputs out = agent.Stop("job", 4);
  EXPECT_THAT(CoreDriver::Signals(out, "job", 5), IsEmpty());
  EXPECT_EQ(agent.LastStatus("job", 4).state(), v1::ATTEMPT_STATE_ENDED);
}

TEST_F(FencingTest, ARepeatedStopOfAnEndedAttemptRepeatsItsResult) {
  agent.Run("job", 1);
  agent.Stop("job", 1);
  End("job", 1);
  const auto statuses = CoreDriver::Statuses(agent.Stop("job", 1));
  ASSERT_THAT(statuses, SizeIs(1));
  EXPECT_THAT(statuses[0].ranks(), SizeIs(2));
}

TEST_F(FencingTest, ANewerEpochStopsTheOlderOneAndWaitsUntilItIsReallyGone) {
  agent.Run("job", 1);
  const Outputs out = agent.Start("job", 2);
  EXPECT_THAT(CoreDriver::All<StartRank>(out), IsEmpty());
  EXPECT_THAT(CoreDriver::Signals(out, "job", 1), ElementsAre(StopSignal::kTerminate));
  agent.Exit("job", 1, 0, 0, SIGTERM);
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Exit("job", 1, 1, 0, SIGTERM)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Advance(std::chrono::seconds(30))), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Gone("job", 1)), SizeIs(2));
  EXPECT_EQ(agent.LastStatus("job", 1).stop_reason(), "superseded by epoch 2");
}

TEST_F(FencingTest, ANewerEpochWaitsForTheOlderOneInOtherSlotsToo) {
  agent.Run("job", 1, {0});
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 2, {1})), IsEmpty());
}

TEST_F(FencingTest, AnotherJobWaitsForTheSlotUntilTheProcessesAreGone) {
  agent.Run("first", 1, {0});
  agent.Run("second", 1, {1});
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("third", 1, {0})), IsEmpty());
  agent.SayExit("first", 1, 0, "OK");
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Exit("first", 1, 0, 0)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Gone("first", 1)), SizeIs(1));
}

TEST_F(FencingTest, TwoWaitingAttemptsNeverShareASlot) {
  agent.Run("first", 1, {0});
  agent.Start("second", 1, {0});
  agent.Start("third", 1, {0});
  agent.SayExit("first", 1, 0, "OK");
  agent.Exit("first", 1, 0, 0);
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Gone("first", 1)), SizeIs(1));
  EXPECT_EQ(agent.core().usage().slots_used, 1);
}

TEST_F(FencingTest, AWaitingAttemptThatIsStoppedEndsWithoutEverStarting) {
  agent.Run("first", 1, {0});
  agent.Start("second", 1, {0});
  agent.Stop("second", 1);
  const auto status = agent.LastStatus("second", 1);
  EXPECT_EQ(status.state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(status.ranks(0).exit().message(), "stopped before it was started");
}

TEST_F(FencingTest, RefusesUidsThatAreNotOnePathComponent) {
  for (const char* uid : {"", "../../etc", "a/b", ".", "a b"}) {
    EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start(uid, 1)), IsEmpty()) << uid;
    EXPECT_THAT(CoreDriver::All<StartPreparation>(agent.Prepare(uid, 1)), IsEmpty()) << uid;
  }
}

TEST_F(FencingTest, OnlyTheNewestEpochPublishes) {
  agent.Run("job", 5);
  v1::ConnectResponse message;
  message.mutable_publish_checkpoint()->set_job_uid("job");
  message.mutable_publish_checkpoint()->set_epoch(4);
  message.mutable_publish_checkpoint()->set_step(10);
  Outputs out = agent.Receive(message);
  EXPECT_THAT(CoreDriver::All<Publish>(out), IsEmpty());
  ASSERT_THAT(CoreDriver::All<Send>(out), SizeIs(1));
  EXPECT_THAT(CoreDriver::All<Send>(out)[0].message.checkpoint_published().error(),
              HasSubstr("epoch 5 has taken over"));
  message.mutable_publish_checkpoint()->set_epoch(5);
  EXPECT_THAT(CoreDriver::All<Publish>(agent.Receive(message)), SizeIs(1));
}

TEST_F(FencingTest, AProbeOfAnOlderEpochDoesNotTouchTheOutput) {
  agent.Run("job", 5);
  v1::ConnectResponse message;
  message.mutable_probe_paths()->set_job_uid("job");
  message.mutable_probe_paths()->set_epoch(4);
  EXPECT_THAT(CoreDriver::All<Probe>(agent.Receive(message)), IsEmpty());
  message.mutable_probe_paths()->set_epoch(6);
  EXPECT_THAT(CoreDriver::All<Probe>(agent.Receive(message)), SizeIs(1));
}

TEST_F(FencingTest, EventsOfUnknownProcessesChangeNothing) {
  EXPECT_THAT(agent.Exit("ghost", 1, 0, 0), IsEmpty());
  EXPECT_THAT(agent.Gone("ghost", 1), IsEmpty());
  EXPECT_THAT(agent.SayReady("ghost", 1, 0), IsEmpty());
  agent.Run("job", 1);
  EXPECT_THAT(agent.SayReady("job", 1, 7), IsEmpty());
}

}  // namespace
}  // namespace switchyard::agent
