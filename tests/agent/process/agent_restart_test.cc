// Agents that die, coordinators that go away, logs that go on where they were.
#include <fcntl.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/agent/support/agent_process.h"
#include "tests/agent/support/scripted_coordinator.h"

namespace switchyard::agent {
namespace {

using ::testing::HasSubstr;

v1::ConnectResponse StartOne(const std::string& job, int64_t epoch,
                             const std::vector<std::string>& commands) {
  v1::ConnectResponse message;
  auto* start = message.mutable_start_ranks();
  start->set_job_uid(job);
  start->set_epoch(epoch);
  start->set_job("projects/default/jobs/" + job);
  start->add_ranks();
  start->set_trainer_config_json(
      nlohmann::json{{"job_uid", job}, {"epoch", epoch}, {"script", {{"0", commands}}}}.dump());
  return message;
}

class AgentRestartTest : public ::testing::Test {
 protected:
  pid_t RunningPid(const std::string& job, int64_t epoch) {
    return static_cast<pid_t>(
        coordinator.WaitFor(job, epoch, v1::ATTEMPT_STATE_RUNNING).ranks(0).pid());
  }
  ScriptedCoordinator coordinator;
  AgentProcess agent{coordinator.address()};
};

TEST_F(AgentRestartTest, TrainersDieWithTheirAgent) {
  coordinator.Send(StartOne("orphan", 1, {"ready", "stall"}));
  const pid_t trainer = RunningPid("orphan", 1);
  agent.Kill(SIGKILL);
  EXPECT_TRUE(Eventually([&] { return !Alive(trainer); }, std::chrono::seconds(3)));
}

TEST_F(AgentRestartTest, WhatSurvivesTheAgentIsRemovedBeforeSlotsAreOffered) {
  coordinator.Send(
      StartOne("tough", 4,
               {"survive-agent", "ignore-term", "grandchild", "segment window", "ready", "stall"}));
  const pid_t trainer = RunningPid("tough", 4);
  agent.Kill(SIGKILL);
  EXPECT_TRUE(Alive(trainer));
  agent.Start();
  const v1::Hello hello = coordinator.WaitForHello(2);
  EXPECT_FALSE(Alive(trainer));
  EXPECT_FALSE(GroupAlive(trainer));
  EXPECT_FALSE(std::filesystem::exists("/dev/shm/switchyard-tough-4-window"));
  ASSERT_EQ(hello.attempts_size(), 1);
  EXPECT_EQ(hello.attempts(0).state(), v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(hello.attempts(0).ranks(0).exit().code(), "AGENT_RESTARTED");
  EXPECT_EQ(hello.attempts(0).ranks(0).pid(), trainer);
}

TEST_F(AgentRestartTest, ALogThatWasNotAcknowledgedIsSentByTheNextIncarnation) {
  coordinator.AcknowledgeLogs(false);
  coordinator.Send(
      StartOne("spooled", 1, {"ready", "log-bytes 900000", "log the end", "exit 0 OK"}));
  coordinator.WaitFor("spooled", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(coordinator.log("spooled", 1, 0).find("the end"), std::string::npos);
  agent.Kill(SIGKILL);
  coordinator.AcknowledgeLogs(true);
  agent.Start();
  EXPECT_EQ(coordinator.WaitForLog("spooled", 1, 0, "the end\n").size(),
            900000 + std::string("the end\n").size());
  EXPECT_EQ(coordinator.log_gaps(), 0);
}

TEST_F(AgentRestartTest, AJournaledResultIsReportedAgainAfterARestart) {
  coordinator.Send(StartOne("result", 2, {"ready", "steps 5 0", "exit 7 DATA"}));
  coordinator.WaitFor("result", 2, v1::ATTEMPT_STATE_ENDED);
  const std::string incarnation = coordinator.WaitForHello(1).incarnation();
  agent.Kill(SIGKILL);
  coordinator.ForgetStatuses();
  agent.Start();
  const v1::Hello hello = coordinator.WaitForHello(2);
  EXPECT_NE(hello.incarnation(), incarnation);
  ASSERT_EQ(hello.attempts_size(), 1);
  EXPECT_EQ(hello.attempts(0).ranks(0).exit().code(), "DATA");
  EXPECT_EQ(hello.attempts(0).ranks(0).exit_code(), 7);
  EXPECT_EQ(hello.attempts(0).ranks(0).step(), 5);
  coordinator.WaitFor("result", 2, v1::ATTEMPT_STATE_ENDED);    // told again after Welcome
  coordinator.Send(StartOne("result", 2, {"ready", "stall"}));  // and never run again
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(coordinator.WaitFor("result", 2, v1::ATTEMPT_STATE_ENDED).ranks(0).exit_code(), 7);
}

TEST_F(AgentRestartTest, RanksGoOnWhileTheCoordinatorIsAway) {
  coordinator.Send(StartOne("steady", 1, {"ready", "stall"}));
  const pid_t trainer = RunningPid("steady", 1);
  coordinator.Stop();
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_TRUE(Alive(trainer));
  coordinator.Start();
  const v1::Hello hello = coordinator.WaitForHello(2);
  ASSERT_EQ(hello.attempts_size(), 1);
  EXPECT_EQ(hello.attempts(0).state(), v1::ATTEMPT_STATE_RUNNING);
  EXPECT_EQ(hello.attempts(0).ranks(0).pid(), trainer);
}

TEST_F(AgentRestartTest, ALogGoesOnFromTheAcknowledgedOffsetAfterALostSession) {
  coordinator.CutAfterLogBytes(200000);
  coordinator.Send(StartOne("chatty", 1, {"ready", "log-bytes 1000000", "log the end", "stall"}));
  const std::string log = coordinator.WaitForLog("chatty", 1, 0, "the end\n");
  EXPECT_EQ(log.size(), 1000000 + std::string("the end\n").size());
  EXPECT_EQ(log.substr(0, 3), "aaa");
  EXPECT_EQ(log.substr(500000, 2), std::string(2, static_cast<char>('a' + 5000 % 26)));
  EXPECT_EQ(coordinator.log_gaps(), 0);
  EXPECT_GE(coordinator.WaitForHello(2).attempts_size(), 1);
}

TEST_F(AgentRestartTest, ALogWaitsForAcknowledgements) {
  coordinator.AcknowledgeLogs(false);
  coordinator.Send(StartOne("unheard", 1, {"ready", "log-bytes 3000000", "log the end", "stall"}));
  RunningPid("unheard", 1);
  ASSERT_TRUE(coordinator.WaitUntil([&] { return true; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_GT(coordinator.log_bytes_received(), 300000);
  EXPECT_LT(coordinator.log_bytes_received(), 700000);  // a window, not everything
}

TEST_F(AgentRestartTest, TwoAgentsCannotShareAWorkDirectory) {
  coordinator.WaitForHello(1);
  AgentProcess second(coordinator.address(), {"--work-dir", agent.work_dir()});
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_THAT(second.stderr_text(), HasSubstr("is in use by another agent"));
}

TEST_F(AgentRestartTest, AMissingTrainerIsSaidAtOnce) {
  AgentProcess second(coordinator.address(), {"--trainer", "/nonexistent/switchyard-trainer"});
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_THAT(second.stderr_text(),
              HasSubstr("trainer /nonexistent/switchyard-trainer does not exist"));
}

}  // namespace
}  // namespace switchyard::agent
