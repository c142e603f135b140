// Hello, Welcome, heartbeats, being without a coordinator, restarts and shutdown.
#include <csignal>

#include "tests/agent/support/core_driver.h"

namespace switchyard::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::chrono::milliseconds kSecond{1000};

v1::ConnectResponse HeartbeatAck() {
  v1::ConnectResponse message;
  message.mutable_heartbeat_ack();
  return message;
}

int Heartbeats(const Outputs& out) {
  int count = 0;
  for (const auto& send : CoreDriver::All<Send>(out)) count += send.message.has_heartbeat();
  return count;
}

// Ends both ranks of an attempt and everything after them.
void End(CoreDriver& agent, const std::string& job, int64_t epoch) {
  agent.Exit(job, epoch, 0, 0, SIGKILL);
  agent.Exit(job, epoch, 1, 0, SIGKILL);
  agent.Gone(job, epoch);
}

TEST(SessionTest, SaysHelloWithInventoryFirst) {
  CoreDriver agent;
  const auto sends = CoreDriver::All<Send>(agent.Step(StreamOpened{}));
  ASSERT_THAT(sends, SizeIs(1));
  EXPECT_EQ(sends[0].message.hello().node(), "node-a");
  EXPECT_THAT(sends[0].message.hello().inventory().slots(), SizeIs(2));
}

TEST(SessionTest, BeatsEveryTwoSecondsWithGrowingSequence) {
  CoreDriver agent;
  agent.Connect();
  EXPECT_EQ(Heartbeats(agent.all()), 1);
  EXPECT_EQ(Heartbeats(agent.Advance(kSecond)), 0);
  const Outputs out = agent.Advance(kSecond);
  EXPECT_EQ(CoreDriver::All<Send>(out)[0].message.heartbeat().sequence(), 2);
}

TEST(SessionTest, AfterAPauseOneHeartbeatIsSentNotAllThatWereMissed) {
  CoreDriver agent;
  agent.Connect();
  EXPECT_EQ(Heartbeats(agent.Advance(kSecond * 7)), 1);
}

TEST(SessionTest, NextDeadlineIsTheHeartbeatAndNoStepBeforeItSaysAnything) {
  CoreDriver agent;
  EXPECT_FALSE(agent.core().NextDeadline().has_value());
  agent.Connect();
  ASSERT_TRUE(agent.core().NextDeadline().has_value());
  EXPECT_THAT(agent.Advance(std::chrono::milliseconds(1999)), IsEmpty());
  EXPECT_EQ(Heartbeats(agent.Advance(std::chrono::milliseconds(1))), 1);
}

TEST(SessionTest, ClosesAStreamOnWhichNothingIsHeardForALease) {
  CoreDriver agent;
  agent.Connect();
  agent.Advance(kSecond * 9);
  agent.Receive(HeartbeatAck());
  EXPECT_THAT(CoreDriver::All<CloseStream>(agent.Advance(kSecond * 9)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<CloseStream>(agent.Advance(kSecond)), SizeIs(1));
  EXPECT_THAT(CoreDriver::All<CloseStream>(agent.Advance(kSecond)), IsEmpty());
}

TEST(SessionTest, ClosesAStreamThatNeverSaysWelcome) {
  CoreDriver agent;
  agent.Step(StreamOpened{});
  EXPECT_THAT(CoreDriver::All<CloseStream>(agent.Advance(kSecond * 10)), SizeIs(1));
}

TEST(SessionTest, RefusesCommandsBeforeWelcome) {
  CoreDriver agent;
  agent.Step(StreamOpened{});
  const Outputs out = agent.Start("job", 1);
  EXPECT_THAT(CoreDriver::All<StartRank>(out), IsEmpty());
  EXPECT_THAT(CoreDriver::All<CloseStream>(out), SizeIs(1));
}

TEST(SessionTest, RefusesAProtocolItDoesNotSpeak) {
  CoreDriver agent;
  agent.Step(StreamOpened{});
  v1::ConnectResponse message;
  message.mutable_welcome()->set_protocol(99);
  const auto closes = CoreDriver::All<CloseStream>(agent.Receive(message));
  ASSERT_THAT(closes, SizeIs(1));
  EXPECT_THAT(closes[0].reason, HasSubstr("speaks protocol 99, this agent 1 to 2"));
}

TEST(SessionTest, TrainersGoOnWhileTheCoordinatorIsAwayAndAreToldAgainAfterwards) {
  CoreDriver agent;
  agent.Connect();
  agent.Run("job", 1);
  agent.SayReady("job", 1, 0);
  agent.Step(StreamClosed{});
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(kSecond * 599), "job", 1), IsEmpty());
  EXPECT_THAT(CoreDriver::All<Send>(agent.SayReady("job", 1, 1)), IsEmpty());
  const auto hello = CoreDriver::All<Send>(agent.Step(StreamOpened{}));
  ASSERT_THAT(hello[0].message.hello().attempts(), SizeIs(1));
  EXPECT_EQ(hello[0].message.hello().attempts(0).state(), v1::ATTEMPT_STATE_RUNNING);
  agent.Connect();
  EXPECT_EQ(agent.LastStatus("job", 1).state(), v1::ATTEMPT_STATE_RUNNING);
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(kSecond * 9), "job", 1), IsEmpty());
}

TEST(SessionTest, StopsTrainersWhenTheExecutionGrantIsOver) {
  CoreDriver agent;
  agent.Connect();
  agent.Run("job", 1);
  agent.Step(StreamClosed{});
  agent.Advance(kSecond * 599);
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(kSecond), "job", 1),
              ElementsAre(StopSignal::kTerminate));
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(kSecond * 29), "job", 1), IsEmpty());
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(kSecond), "job", 1),
              ElementsAre(StopSignal::kKill));
  End(agent, "job", 1);
  const auto results = CoreDriver::All<JournalResult>(agent.all());
  ASSERT_THAT(results, SizeIs(1));
  EXPECT_EQ(results[0].result.stop_reason(), "no coordinator was reached for 600 s");
}

TEST(SessionTest, HeartbeatAcksRenewTheGrantAndOnlyAWelcomeSetsItsLength) {
  CoreDriver agent;
  agent.Step(StreamOpened{});
  v1::ConnectResponse message;
  message.mutable_welcome()->set_protocol(1);
  message.mutable_welcome()->set_execution_grant_ms(20000);
  message.mutable_welcome()->set_lease_ms(100000);
  agent.Receive(message);
  agent.Run("job", 1);
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(CoreDriver::Signals(agent.Advance(kSecond * 19), "job", 1), IsEmpty());
    agent.Receive(HeartbeatAck());
  }
  EXPECT_THAT(CoreDriver::Signals(agent.Advance(kSecond * 20), "job", 1),
              ElementsAre(StopSignal::kTerminate));
}

TEST(SessionTest, AResultThatEndedWhileAwayIsInHelloUntilItIsAcknowledged) {
  CoreDriver agent;
  agent.Connect();
  agent.Run("job", 1);
  agent.Step(StreamClosed{});
  End(agent, "job", 1);
  for (int i = 0; i < 2; ++i) {
    const auto hello = CoreDriver::All<Send>(agent.Step(StreamOpened{}));
    ASSERT_THAT(hello[0].message.hello().attempts(), SizeIs(1));
    EXPECT_EQ(hello[0].message.hello().attempts(0).state(), v1::ATTEMPT_STATE_ENDED);
    agent.Step(StreamClosed{});
  }
  agent.Connect();
  EXPECT_THAT(CoreDriver::All<ForgetAttempt>(agent.Ack("job", 1)), SizeIs(1));
  agent.Step(StreamClosed{});
  EXPECT_THAT(CoreDriver::All<Send>(agent.Step(StreamOpened{}))[0].message.hello().attempts(),
              IsEmpty());
}

TEST(SessionTest, AJournaledResultIsReportedByTheNextIncarnationAndFences) {
  v1::AttemptStatus result;
  result.set_job_uid("job");
  result.set_epoch(3);
  result.set_state(v1::ATTEMPT_STATE_ENDED);
  result.add_ranks()->set_exit_code(7);
  CoreDriver agent(2, {{result}, "store"});
  agent.Connect("store");
  EXPECT_EQ(agent.LastStatus("job", 3).ranks(0).exit_code(), 7);
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 3)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 2)), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("job", 4)), SizeIs(2));
  EXPECT_EQ(agent.core().usage().results_unacknowledged, 1);
}

TEST(SessionTest, AnotherStoreMakesResultsUselessAndStopsWhatRuns) {
  v1::AttemptStatus result;
  result.set_job_uid("old");
  result.set_epoch(3);
  CoreDriver agent(2, {{result}, "store"});
  agent.Connect("store");
  agent.Run("job", 1);
  agent.Step(StreamClosed{});
  agent.Connect("another");
  EXPECT_THAT(CoreDriver::All<ForgetAttempt>(agent.all()), SizeIs(1));
  EXPECT_THAT(CoreDriver::Signals(agent.all(), "job", 1), ElementsAre(StopSignal::kTerminate));
  const auto remembered = CoreDriver::All<RememberStore>(agent.all());
  ASSERT_THAT(remembered, SizeIs(1));
  EXPECT_EQ(remembered[0].store_id, "another");
}

TEST(SessionTest, TheFirstStoreIsRememberedWithoutHarm) {
  CoreDriver agent;
  agent.Connect("store");
  EXPECT_THAT(CoreDriver::All<RememberStore>(agent.all()), SizeIs(1));
  agent.Step(StreamClosed{});
  agent.Connect("store");
  EXPECT_THAT(CoreDriver::All<RememberStore>(agent.all()), SizeIs(1));
}

TEST(SessionTest, ShutdownStopsEverythingAndCompletesWhenAllIsGone) {
  CoreDriver agent;
  agent.Connect();
  agent.Run("job", 1);
  Outputs out = agent.Step(ShutdownRequested{});
  EXPECT_THAT(CoreDriver::Signals(out, "job", 1), ElementsAre(StopSignal::kTerminate));
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(out), IsEmpty());
  EXPECT_THAT(CoreDriver::All<StartRank>(agent.Start("other", 1)), IsEmpty());
  End(agent, "job", 1);
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(agent.all()), SizeIs(1));
  EXPECT_THAT(CoreDriver::All<JournalResult>(agent.all()), SizeIs(1));
}

TEST(SessionTest, ShutdownOfAnIdleAgentCompletesAtOnce) {
  CoreDriver agent;
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(agent.Step(ShutdownRequested{})), SizeIs(1));
}

// ---- versions, and agents of one attempt

v1::ConnectResponse WelcomeOf(int protocol) {
  v1::ConnectResponse message;
  message.mutable_welcome()->set_protocol(protocol);
  message.mutable_welcome()->set_store_id("store");
  return message;
}

v1::ConnectResponse Leave() {
  v1::ConnectResponse message;
  message.mutable_leave()->set_reason("the attempt is over");
  return message;
}

AgentCore LentAgent(std::chrono::steady_clock::time_point now) {
  AgentCore::Options options = CoreDriver::Options(2);
  options.allocation = "job/3";
  return AgentCore(std::move(options), {}, now);
}

TEST(VersionTest, TheCoordinatorOfTheReleaseBeforeIsAccepted) {
  CoreDriver agent;
  agent.Step(StreamOpened{});
  EXPECT_THAT(CoreDriver::All<CloseStream>(agent.Receive(WelcomeOf(kOldestProtocol))), IsEmpty());
  CoreDriver other;
  other.Step(StreamOpened{});
  const auto closed = CoreDriver::All<CloseStream>(other.Receive(WelcomeOf(kNewestProtocol + 1)));
  ASSERT_THAT(closed, SizeIs(1));
  EXPECT_THAT(closed[0].reason, HasSubstr("the coordinator first"));
}

TEST(LentAgentTest, SaysForWhatItWasStartedAndLeavesWhenTold) {
  const auto now = std::chrono::steady_clock::now();
  AgentCore agent = LentAgent(now);
  const auto hello = CoreDriver::All<Send>(agent.Step(StreamOpened{}, now, {}));
  ASSERT_THAT(hello, SizeIs(1));
  EXPECT_EQ(hello[0].message.hello().allocation(), "job/3");
  agent.Step(FromCoordinator{WelcomeOf(2)}, now, {});
  EXPECT_FALSE(agent.left());
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(agent.Step(FromCoordinator{Leave()}, now, {})),
              SizeIs(1));
  EXPECT_TRUE(agent.left());
}

TEST(LentAgentTest, EndsWhenNoCoordinatorCameBackForTheWholeGrant) {
  const auto now = std::chrono::steady_clock::now();
  AgentCore agent = LentAgent(now);
  ASSERT_TRUE(agent.NextDeadline().has_value());
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(agent.Step(Tick{}, now + 599 * kSecond, {})),
              IsEmpty());
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(agent.Step(Tick{}, now + 600 * kSecond, {})),
              SizeIs(1));
  EXPECT_FALSE(agent.left());  // what it has is not yet with the coordinator: the directory stays
}

TEST(LentAgentTest, AnAgentThatServesEverybodyDoesNotLeave) {
  CoreDriver agent;
  agent.Connect();
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(agent.Receive(Leave())), IsEmpty());
  EXPECT_THAT(CoreDriver::All<ShutdownComplete>(agent.Advance(601 * kSecond)), IsEmpty());
}

}  // namespace
}  // namespace switchyard::agent
