#include <csignal>

#include "tests/agent/support/core_driver.h"

namespace switchyard::agent {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class AttemptTest : public ::testing::Test {
 protected:
  AttemptTest() { agent.Connect(); }
  CoreDriver agent;
};

TEST_F(AttemptTest, StartsEveryRankInItsSlotWithTheConfigOfTheCommand) {
  const auto starts = CoreDriver::All<StartRank>(agent.Start("job", 1, {1, 0}));
  ASSERT_THAT(starts, SizeIs(2));
  EXPECT_EQ(starts[0].key, CoreDriver::Rank("job", 1, 0));
  EXPECT_EQ(starts[0].slot, 1);
  EXPECT_EQ(starts[1].slot, 0);
  EXPECT_EQ(starts[0].config_json, "{}");
  EXPECT_EQ(starts[0].job, "projects/default/jobs/job");
}

TEST_F(AttemptTest, IsStartingUntilEveryRankSaidReadyThenRunning) {
  agent.Run("job", 1);
  agent.SayReady("job", 1, 0);
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_STARTING);
  agent.SayReady("job", 1, 1);
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_RUNNING);
  EXPECT_EQ(agent.LastStatus("job", 1).ranks(0).pid(), 100);
}

TEST_F(AttemptTest, EndsOnlyWhenTheGroupIsGoneAndJournalsBeforeItTells) {
  agent.Run("job", 1);
  for (int rank : {0, 1}) {
    agent.SayExit("job", 1, rank, "OK");
    agent.Exit("job", 1, rank, 0);
  }
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_STOPPING);
  const Outputs out = agent.Gone("job", 1);
  ASSERT_THAT(out, SizeIs(2));
  ASSERT_TRUE(std::holds_alternative<JournalResult>(out[0]));
  EXPECT_EQ(std::get<JournalResult>(out[0]).result.state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(std::get<Send>(out[1]).message.attempt_status().state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_FALSE(agent.LastStatus("job", 1).has_first_failed_rank());
  EXPECT_EQ(agent.LastStatus("job", 1).ranks(0).exit().code(), "OK");
  EXPECT_FALSE(agent.LastStatus("job", 1).ranks(0).stopped_by_agent());
}

TEST_F(AttemptTest, SweepsDescendantsThatOutliveTheRanks) {
  agent.Run("job", 1, {0});
  agent.SayExit("job", 1, 0, "OK");
  EXPECT_THAT(CoreDriver::Signals(agent.Exit("job", 1, 0, 0), "job", 1),
              ElementsAre(StopSignal::kKill));
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(std::chrono::seconds(2)), "job", 1),
              ElementsAre(StopSignal::kKill));
  agent.Gone("job", 1);
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(std::chrono::seconds(2)), "job", 1), IsEmpty());
}

TEST_F(AttemptTest, FirstFailureTerminatesTheGroupAndKillsItAfterTheGrace) {
  agent.Run("job", 1);
  EXPECT_THAT(CoreDriver::Signals(agent.Exit("job", 1, 1, 0, SIGSEGV), "job", 1),
              ElementsAre(StopSignal::kTerminate));
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(std::chrono::milliseconds(900)), "job", 1),
              IsEmpty());
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(std::chrono::milliseconds(200)), "job", 1),
              ElementsAre(StopSignal::kKill));
  agent.Exit("job", 1, 0, 0, SIGKILL);
  agent.Gone("job", 1);
  const auto status = agent.LastStatus("job", 1);
  EXPECT_EQ(status.state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(status.first_failed_rank(), 1);
  EXPECT_EQ(status.ranks(1).exit().code(), "CRASHED");
  EXPECT_EQ(status.ranks(1).exit_code(), 128 + SIGSEGV);
  EXPECT_FALSE(status.ranks(1).stopped_by_agent());
  EXPECT_THAT(status.ranks(1).log_tail(), ElementsAre("last words"));
  EXPECT_EQ(status.ranks(1).exit_time().seconds(), 1700000000);
  EXPECT_TRUE(status.ranks(0).stopped_by_agent());
  EXPECT_EQ(status.ranks(0).exit().code(), "KILLED");
  EXPECT_THAT(status.ranks(0).log_tail(), IsEmpty());
  EXPECT_THAT(status.stop_reason(), HasSubstr("rank 1 failed: rank 1 ended with signal 11"));
}

TEST_F(AttemptTest, ReportsWhatTheFailedRankSaidItself) {
  agent.Run("job", 1);
  agent.SayExit("job", 1, 0, "DATA");
  agent.Exit("job", 1, 0, 65);
  const auto status = agent.LastStatus("job", 1);
  EXPECT_EQ(status.first_failed_rank(), 0);
  EXPECT_EQ(status.ranks(0).exit().code(), "DATA");
  EXPECT_EQ(status.ranks(0).exit().message(), "DATA it is");
  EXPECT_EQ(status.ranks(0).exit_code(), 65);
}

TEST_F(AttemptTest, ExitCodeZeroWithoutAReasonIsAFailure) {
  agent.Run("job", 1);
  agent.Exit("job", 1, 0, 0);
  EXPECT_EQ(agent.LastStatus("job", 1).first_failed_rank(), 0);
  EXPECT_EQ(agent.LastStatus("job", 1).ranks(0).exit().code(), "CRASHED");
}

TEST_F(AttemptTest, SayingOkAndThenCrashingIsAFailure) {
  agent.Run("job", 1);
  agent.SayExit("job", 1, 0, "OK");
  agent.Exit("job", 1, 0, 0, SIGABRT);
  EXPECT_EQ(agent.LastStatus("job", 1).ranks(0).exit().code(), "CRASHED");
  EXPECT_THAT(agent.LastStatus("job", 1).ranks(0).exit().message(),
              HasSubstr("said OK and then ended with signal 6"));
}

TEST_F(AttemptTest, TheCauseOfACascadeIsTheRankThatDidNotMerelyLoseItsPeer) {
  agent.Run("job", 1);
  agent.SayExit("job", 1, 0, "PEER_LOST");
  agent.Exit("job", 1, 0, 1);
  EXPECT_EQ(agent.LastStatus("job", 1).first_failed_rank(), 0);
  agent.Exit("job", 1, 1, 0, SIGKILL);  // the kernel's, ours was not sent yet
  const auto status = agent.LastStatus("job", 1);
  EXPECT_EQ(status.first_failed_rank(), 1);
  EXPECT_FALSE(status.ranks(1).stopped_by_agent());
  EXPECT_THAT(status.ranks(1).exit().message(), HasSubstr("ran out of memory"));
  EXPECT_THAT(status.stop_reason(), HasSubstr("rank 1 failed"));
}

TEST_F(AttemptTest, OurOwnSignalsAreNeverTheCause) {
  agent.Run("job", 1);
  agent.SayExit("job", 1, 0, "PEER_LOST");
  agent.Exit("job", 1, 0, 1);
  agent.Exit("job", 1, 1, 0, SIGTERM);
  EXPECT_EQ(agent.LastStatus("job", 1).first_failed_rank(), 0);
  EXPECT_TRUE(agent.LastStatus("job", 1).ranks(1).stopped_by_agent());
}

TEST_F(AttemptTest, OneRankEndingWellDoesNotStopTheOthers) {
  agent.Run("job", 1);
  agent.SayExit("job", 1, 1, "OK");
  EXPECT_THAT(CoreDriver::Signals(agent.Exit("job", 1, 1, 0), "job", 1), IsEmpty());
}

TEST_F(AttemptTest, AFailedStartEndsTheOthersAndNamesTheReason) {
  agent.Start("job", 1);
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, 0), 100});
  EXPECT_THAT(
      CoreDriver::Signals(
          agent.Step(ProcessStartFailed{CoreDriver::Rank("job", 1, 1), "no such file"}), "job", 1),
      ElementsAre(StopSignal::kTerminate));
  agent.Exit("job", 1, 0, 0, SIGTERM);
  agent.Gone("job", 1);
  const auto status = agent.LastStatus("job", 1);
  EXPECT_EQ(status.state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(status.first_failed_rank(), 1);
  EXPECT_EQ(status.ranks(1).exit().code(), "SPAWN_FAILED");
  EXPECT_EQ(status.ranks(1).exit().message(), "no such file");
}

TEST_F(AttemptTest, EndsAtOnceWhenNoRankCouldBeStarted) {
  agent.Start("job", 1);
  agent.Step(ProcessStartFailed{CoreDriver::Rank("job", 1, 0), "no such file"});
  agent.Step(ProcessStartFailed{CoreDriver::Rank("job", 1, 1), "no such file"});
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_ENDED);
}

TEST_F(AttemptTest, ARankThatStartsAfterTheStopIsSignalledToo) {
  agent.Start("job", 1, {0});
  agent.Stop("job", 1);
  EXPECT_THAT(
      CoreDriver::Signals(agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, 0), 100}), "job", 1),
      ElementsAre(StopSignal::kTerminate));
  agent.Advance(std::chrono::seconds(4));
  EXPECT_NE(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_ENDED);
  agent.Exit("job", 1, 0, 0, SIGKILL);
  agent.Gone("job", 1);
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_TRUE(agent.LastStatus("job", 1).ranks(0).stopped_by_agent());
}

TEST_F(AttemptTest, RelaysRendezvousOnceToEveryRankEvenToOnesThatStartLater) {
  agent.Start("job", 1);
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, 0), 100});
  v1::ConnectResponse message;
  message.mutable_relay_line()->set_job_uid("job");
  message.mutable_relay_line()->set_epoch(1);
  message.mutable_relay_line()->mutable_line()->mutable_rendezvous()->set_id("token");
  EXPECT_THAT(CoreDriver::All<WriteLine>(agent.Receive(message)), SizeIs(1));
  EXPECT_THAT(CoreDriver::All<WriteLine>(agent.Receive(message)), IsEmpty());
  const auto late =
      CoreDriver::All<WriteLine>(agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, 1), 101}));
  ASSERT_THAT(late, SizeIs(1));
  EXPECT_EQ(late[0].line.rendezvous().id(), "token");
}

TEST_F(AttemptTest, RelaysOnlyToTheEpochNamed) {
  agent.Run("job", 2);
  v1::ConnectResponse message;
  message.mutable_relay_line()->set_job_uid("job");
  message.mutable_relay_line()->set_epoch(1);
  message.mutable_relay_line()->mutable_line()->mutable_stop();
  EXPECT_THAT(CoreDriver::All<WriteLine>(agent.Receive(message)), IsEmpty());
}

TEST_F(AttemptTest, TellsTheRendezvousIdAndForwardsStepsAsReports) {
  agent.Run("job", 1);
  trainer::v1::TrainerLine line;
  line.mutable_rendezvous()->set_id("token");
  agent.Say("job", 1, 0, line);
  EXPECT_EQ(agent.LastStatus("job", 1).rendezvous_id(), "token");
  line.mutable_step()->set_step(7);
  const auto sends = CoreDriver::All<Send>(agent.Say("job", 1, 1, line));
  ASSERT_THAT(sends, SizeIs(1));
  EXPECT_EQ(sends[0].message.rank_report().rank(), 1);
  EXPECT_EQ(sends[0].message.rank_report().line().step().step(), 7);
}

TEST_F(AttemptTest, TellsHowFarAnEvaluationIsAsASignOfLife) {
  agent.Run("job", 1);
  trainer::v1::TrainerLine line;
  line.mutable_phase()->set_name("evaluating");
  const auto told = CoreDriver::All<Send>(agent.Say("job", 1, 0, line));
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_TRUE(told[0].message.has_attempt_status());
  line.mutable_phase()->set_progress(0.5);
  const auto progress = CoreDriver::All<Send>(agent.Say("job", 1, 0, line));
  ASSERT_THAT(progress, SizeIs(1));
  EXPECT_EQ(progress[0].message.rank_report().line().phase().progress(), 0.5);
}

TEST_F(AttemptTest, KeepsDurableShardsUntilTheirCheckpointIsPublished) {
  agent.Run("job", 1);
  for (int64_t step : {10, 20, 30, 40, 50}) {
    trainer::v1::TrainerLine line;
    line.mutable_checkpoint_shard()->set_step(step);
    line.mutable_checkpoint_shard()->set_final_path("/out/step-" + std::to_string(step));
    agent.Say("job", 1, 0, line);
    agent.Say("job", 1, 0, line);
  }
  EXPECT_THAT(agent.LastStatus("job", 1).checkpoint_shards(),
              SizeIs(4));  // the oldest is superseded
  v1::CheckpointPublished published;
  published.set_job_uid("job");
  published.set_epoch(1);
  published.set_step(40);
  published.set_final_path("/out/step-40");
  agent.Step(PublishDone{published});
  agent.SayReady("job", 1, 0);
  std::vector<int64_t> steps;
  const auto status = agent.LastStatus("job", 1);
  for (const auto& shard : status.checkpoint_shards()) steps.push_back(shard.step());
  EXPECT_THAT(steps, ElementsAre(20, 30, 50));
}

TEST_F(AttemptTest, PreparesDataThenRunsRanksOnceThePreparationIsGone) {
  EXPECT_THAT(CoreDriver::All<StartPreparation>(agent.Prepare("job", 1)), SizeIs(1));
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, kPreparationRank), 90});
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_PREPARING);
  v1::DataStatus data;
  data.set_ready(true);
  data.set_train_dir("/out/data/x/train");
  agent.SayData("job", 1, data);
  agent.Exit("job", 1, kPreparationRank, 0);
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 1)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Gone("job", 1, Phase::kPreparation)), SizeIs(2));
  EXPECT_EQ(agent.LastStatus("job", 1).data().train_dir(), "/out/data/x/train");
}

TEST_F(AttemptTest, IsPreparedWhenTheResultCameAndTheProcessEndedWell) {
  agent.Prepare("job", 1);
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, kPreparationRank), 90});
  v1::DataStatus data;
  data.set_ready(true);
  agent.SayData("job", 1, data);
  EXPECT_FALSE(agent.LastStatus("job", 1).data().ready());
  agent.Exit("job", 1, kPreparationRank, 0);
  agent.Gone("job", 1, Phase::kPreparation);
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_PREPARED);
  EXPECT_TRUE(agent.LastStatus("job", 1).data().ready());
}

TEST_F(AttemptTest, FailedPreparationEndsTheAttemptWithItsSentence) {
  agent.Prepare("job", 1);
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, kPreparationRank), 90});
  v1::DataStatus data;
  data.set_error("train.jsonl line 3: no assistant turn");
  agent.SayData("job", 1, data);
  agent.Exit("job", 1, kPreparationRank, 65);
  agent.Gone("job", 1, Phase::kPreparation);
  const auto status = agent.LastStatus("job", 1);
  EXPECT_EQ(status.state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(status.data().error(), "train.jsonl line 3: no assistant turn");
  EXPECT_TRUE(status.data().user_error());
  EXPECT_THAT(CoreDriver::All<JournalResult>(agent.all()), SizeIs(1));
}

TEST_F(AttemptTest, PreparationThatDiesWithoutAWordIsNotTheUsersFault) {
  agent.Prepare("job", 1);
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, kPreparationRank), 90});
  agent.Exit("job", 1, kPreparationRank, 0, SIGKILL);
  agent.Gone("job", 1, Phase::kPreparation);
  const auto status = agent.LastStatus("job", 1);
  EXPECT_FALSE(status.data().user_error());
  EXPECT_THAT(status.data().error(), HasSubstr("signal 9"));
  EXPECT_THAT(status.data().error(), HasSubstr("last words"));
}

TEST_F(AttemptTest, PreparationIsCancelledByStopAttempt) {
  agent.Prepare("job", 1);
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, kPreparationRank), 90});
  EXPECT_THAT(CoreDriver::Signals(agent.Stop("job", 1), "job", 1),
              ElementsAre(StopSignal::kTerminate));
  agent.Exit("job", 1, kPreparationRank, 0, SIGTERM);
  agent.Gone("job", 1, Phase::kPreparation);
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(agent.LastStatus("job", 1).data().error(), "");
  EXPECT_EQ(agent.LastStatus("job", 1).stop_reason(), "test");
}

TEST_F(AttemptTest, ProgressOfPreparationIsToldWithTheHeartbeat) {
  agent.Prepare("job", 1);
  agent.Step(ProcessStarted{CoreDriver::Rank("job", 1, kPreparationRank), 90});
  v1::DataStatus data;
  data.set_progress(0.25);
  EXPECT_THAT(agent.SayData("job", 1, data), IsEmpty());
  const auto statuses = CoreDriver::Statuses(agent.Advance(std::chrono::seconds(2)));
  ASSERT_THAT(statuses, SizeIs(1));
  EXPECT_EQ(statuses[0].data().progress(), 0.25);
}

TEST_F(AttemptTest, RefusesSlotsThatDoNotExistByName) {
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 1, {0, 5})), IsEmpty());
  const auto status = agent.LastStatus("job", 1);
  EXPECT_EQ(status.state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(status.ranks(0).exit().message(), "slot 5 does not exist: node node-a has 2 slots");
}

TEST_F(AttemptTest, RefusesTwoRanksInOneSlot) {
  agent.Start("job", 1, {0, 0});
  EXPECT_EQ(agent.LastStatus("job", 1).stop_reason(), "slot 0 is named twice");
}

}  // namespace
}  // namespace switchyard::agent
