// The real agent with fake trainers and a scripted coordinator over real gRPC.
#include "tests/agent/support/agent_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/agent/support/scripted_coordinator.h"

namespace switchyard::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Script = std::vector<std::vector<std::string>>;  // commands of each rank

v1::ConnectResponse StartRanks(const std::string& job, int64_t epoch, const Script& script) {
  v1::ConnectResponse message;
  auto* start = message.mutable_start_ranks();
  start->set_job_uid(job);
  start->set_epoch(epoch);
  start->set_job("projects/default/jobs/" + job);
  nlohmann::json config = {
      {"job_uid", job}, {"epoch", epoch}, {"script", nlohmann::json::object()}};
  for (size_t rank = 0; rank < script.size(); ++rank) {
    config["script"][std::to_string(rank)] = script[rank];
    auto* local = start->add_ranks();
    local->set_rank(static_cast<int>(rank));
    local->set_slot(static_cast<int>(rank));
  }
  start->set_trainer_config_json(config.dump());
  return message;
}

v1::ConnectResponse StopAttempt(const std::string& job, int64_t epoch) {
  v1::ConnectResponse message;
  message.mutable_stop_attempt()->set_job_uid(job);
  message.mutable_stop_attempt()->set_epoch(epoch);
  return message;
}

v1::ConnectResponse AttemptAck(const std::string& job, int64_t epoch) {
  v1::ConnectResponse message;
  message.mutable_attempt_ack()->set_job_uid(job);
  message.mutable_attempt_ack()->set_epoch(epoch);
  return message;
}

class AgentProcessTest : public ::testing::Test {
 protected:
  // The attempt's processes by pid, once they run.
  std::vector<pid_t> RunningPids(const std::string& job, int64_t epoch) {
    std::vector<pid_t> pids;
    const v1::AttemptStatus status = coordinator.WaitFor(job, epoch, v1::ATTEMPT_STATE_RUNNING);
    for (const auto& rank : status.ranks()) pids.push_back(static_cast<pid_t>(rank.pid()));
    return pids;
  }
  size_t Reports(const std::string& job) {
    size_t count = 0;
    for (const auto& message : coordinator.said()) {
      count += message.has_rank_report() && message.rank_report().job_uid() == job;
    }
    return count;
  }

  ScriptedCoordinator coordinator;
  AgentProcess agent{coordinator.address()};
};

TEST_F(AgentProcessTest, SaysWhatTheNodeOffers) {
  const v1::Hello hello = coordinator.WaitForHello(1);
  EXPECT_EQ(hello.node(), "node-a");
  EXPECT_EQ(hello.protocol_min(), 1);
  EXPECT_FALSE(hello.incarnation().empty());
  EXPECT_FALSE(hello.boot_id().empty());
  ASSERT_EQ(hello.inventory().slots_size(), 2);
  EXPECT_EQ(hello.inventory().slots(1).device(), "cpu");
  EXPECT_EQ(hello.inventory().slots(1).index(), 1);
  EXPECT_GT(hello.inventory().slots(0).memory_bytes(), int64_t{64} << 20);
  EXPECT_LE(2 * hello.inventory().slots(0).memory_bytes(), hello.inventory().memory_bytes());
  EXPECT_FALSE(hello.inventory().memory_domain().empty());
  EXPECT_GE(hello.inventory().cpu_cores(), 1);
  EXPECT_FALSE(hello.inventory().fabric_address().empty());
}

TEST_F(AgentProcessTest, RunsAnAttemptFromStartToAcknowledgedEnd) {
  coordinator.Send(StartRanks(
      "whole", 1,
      {{"rendezvous token-7", "ready", "steps 3 5", "eval 1.5", "log all done", "exit 0 OK"},
       {"ready", "steps 3 5", "exit 0 OK"}}));
  const v1::AttemptStatus end = coordinator.WaitFor("whole", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.rendezvous_id(), "token-7");
  EXPECT_FALSE(end.has_first_failed_rank());
  ASSERT_EQ(end.ranks_size(), 2);
  for (const auto& rank : end.ranks()) {
    EXPECT_EQ(rank.exit().code(), "OK");
    EXPECT_EQ(rank.exit_code(), 0);
    EXPECT_EQ(rank.step(), 3);
    EXPECT_TRUE(rank.ready());
  }
  EXPECT_EQ(Reports("whole"), 7u);  // three steps a rank and an evaluation
  EXPECT_THAT(coordinator.log("whole", 1, 0),
              HasSubstr("all done\n"));  // the tail came before the end
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(agent.work_dir() + "/journal"), {}),
            2);
  coordinator.Send(AttemptAck("whole", 1));
  EXPECT_TRUE(Eventually(
      [&] { return !std::filesystem::exists(agent.work_dir() + "/journal/whole.1.json"); }));
}

TEST_F(AgentProcessTest, AFailureEndsItsOwnGroupAndNoOther) {
  coordinator.Send(StartRanks("healthy", 1, {{"ready", "stall"}}));
  const std::vector<pid_t> healthy = RunningPids("healthy", 1);
  v1::ConnectResponse other =
      StartRanks("failing", 1, {{"ready", "log about to fail", "log-not-utf8", "signal 11"}});
  other.mutable_start_ranks()->mutable_ranks(0)->set_slot(1);
  coordinator.Send(other);
  const v1::AttemptStatus end = coordinator.WaitFor("failing", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.first_failed_rank(), 0);
  EXPECT_EQ(end.ranks(0).exit().code(), "CRASHED");
  EXPECT_EQ(end.ranks(0).exit_code(), 139);
  EXPECT_THAT(end.ranks(0).log_tail(), ElementsAre("about to fail", "byte \xEF\xBF\xBD"));
  EXPECT_TRUE(Alive(healthy[0]));
  EXPECT_TRUE(Alive(agent.pid()));
}

TEST_F(AgentProcessTest, TheFirstFailureStopsPeersEvenIfTheyIgnoreSigtermAndHaveChildren) {
  coordinator.Send(StartRanks(
      "mixed", 1,
      {{"ignore-term", "grandchild", "ready", "stall"}, {"ready", "wait-line", "exit 3"}}));
  const std::vector<pid_t> pids = RunningPids("mixed", 1);
  v1::ConnectResponse relay;
  relay.mutable_relay_line()->set_job_uid("mixed");
  relay.mutable_relay_line()->set_epoch(1);
  relay.mutable_relay_line()->mutable_line()->mutable_rendezvous()->set_id("token");
  coordinator.Send(relay);
  const v1::AttemptStatus end = coordinator.WaitFor("mixed", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.first_failed_rank(), 1);
  EXPECT_EQ(end.ranks(1).exit_code(), 3);
  EXPECT_TRUE(end.ranks(0).stopped_by_agent());
  EXPECT_EQ(end.ranks(0).exit_code(), 128 + SIGKILL);
  EXPECT_FALSE(GroupAlive(pids[0]));
  EXPECT_EQ(agent.Zombies(), 0);
  EXPECT_THAT(coordinator.log("mixed", 1, 1), HasSubstr(R"(got {"rendezvous":{"id":"token"}})"));
}

TEST_F(AgentProcessTest, StopAttemptEndsItAndSaysSo) {
  coordinator.Send(
      StartRanks("stopped", 3, {{"ready", "segment window", "stall"}, {"ready", "stall"}}));
  const std::vector<pid_t> pids = RunningPids("stopped", 3);
  ASSERT_TRUE(
      Eventually([] { return std::filesystem::exists("/dev/shm/switchyard-stopped-3-window"); }));
  coordinator.Send(StopAttempt("stopped", 3));
  const v1::AttemptStatus end = coordinator.WaitFor("stopped", 3, v1::ATTEMPT_STATE_ENDED);
  EXPECT_TRUE(end.ranks(0).stopped_by_agent());
  EXPECT_FALSE(end.has_first_failed_rank());
  for (const pid_t pid : pids) EXPECT_FALSE(Alive(pid));
  EXPECT_FALSE(std::filesystem::exists("/dev/shm/switchyard-stopped-3-window"));
  coordinator.Send(StopAttempt("unknown", 9));
  EXPECT_EQ(coordinator.WaitFor("unknown", 9, v1::ATTEMPT_STATE_ENDED).ranks_size(), 0);
}

TEST_F(AgentProcessTest, ASlotIsNotUsedAgainBeforeTheOldProcessIsGone) {
  coordinator.Send(StartRanks("again", 1, {{"ignore-term", "ready", "stall"}}));
  const std::vector<pid_t> old = RunningPids("again", 1);
  coordinator.Send(StartRanks("again", 2, {{"ready", "stall"}}));
  const v1::AttemptStatus running = coordinator.WaitFor("again", 2, v1::ATTEMPT_STATE_RUNNING);
  EXPECT_FALSE(Alive(old[0]));
  // The order in which it was told: 1 ended before 2 had a process.
  bool ended = false;
  for (const auto& message : coordinator.said()) {
    if (!message.has_attempt_status()) continue;
    const auto& status = message.attempt_status();
    ended = ended || (status.epoch() == 1 && status.state() == v1::ATTEMPT_STATE_ENDED);
    const bool second_runs =
        status.epoch() == 2 && status.ranks_size() > 0 && status.ranks(0).pid() != 0;
    EXPECT_TRUE(!second_runs || ended);
  }
  EXPECT_NE(running.ranks(0).pid(), old[0]);
}

TEST_F(AgentProcessTest, TrainersGetOnlyTheDescriptorsAndTheEnvironmentTheyNeed) {
  coordinator.Send(
      StartRanks("lean", 1,
                 {{"fds", "env OMP_NUM_THREADS", "env CUDA_VISIBLE_DEVICES", "env GTEST_FILTER",
                   "env SWITCHYARD_BINARY_DIR", "env PATH", "exit 0 OK"}}));
  coordinator.WaitFor("lean", 1, v1::ATTEMPT_STATE_ENDED);
  const std::string log = coordinator.log("lean", 1, 0);
  std::set<std::string> lines;
  std::istringstream stream(log);
  for (std::string line; std::getline(stream, line);) lines.insert(line);
  EXPECT_TRUE(lines.contains("fds 0 1 2 3 4") || lines.contains("fds 0 1 2 3 4 5"))
      << log;  // 5: train.json of the fake
  const int cores = coordinator.WaitForHello(1).inventory().cpu_cores();
  EXPECT_TRUE(lines.contains("OMP_NUM_THREADS=" + std::to_string(std::max(1, cores / 2)))) << log;
  EXPECT_TRUE(lines.contains("CUDA_VISIBLE_DEVICES=")) << log;
  EXPECT_TRUE(lines.contains("SWITCHYARD_BINARY_DIR=(unset)")) << log;
  EXPECT_FALSE(lines.contains("PATH=(unset)")) << log;
}

TEST_F(AgentProcessTest, UnreadableLinesAreSurvived) {
  coordinator.Send(
      StartRanks("garbled", 1, {{"garbage", "long-line", "ready", "steps 1 0", "exit 0 OK"}}));
  const v1::AttemptStatus end = coordinator.WaitFor("garbled", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.ranks(0).exit().code(), "OK");
  EXPECT_EQ(end.ranks(0).step(), 1);
  EXPECT_THAT(agent.stderr_text(), HasSubstr("longer than 1 MiB"));
}

TEST_F(AgentProcessTest, ATrainerThatCannotBeStartedIsASentence) {
  coordinator.WaitForHello(1);  // commands go to the newest session: it must be the other's
  AgentProcess other(coordinator.address(), {"--node", "node-b", "--trainer", "/bin/true"});
  coordinator.WaitForHello(2);
  std::filesystem::permissions(other.work_dir() + "/attempts", std::filesystem::perms::none);
  std::filesystem::remove(other.work_dir() + "/attempts");
  std::ofstream(other.work_dir() + "/attempts") << "in the way";
  coordinator.Send(StartRanks("blocked", 1, {{"ready"}}));
  const v1::AttemptStatus end = coordinator.WaitFor("blocked", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.ranks(0).exit().code(), "SPAWN_FAILED");
  EXPECT_THAT(end.ranks(0).exit().message(), HasSubstr("cannot create"));
}

TEST_F(AgentProcessTest, NothingLeaksOverManyAttempts) {
  coordinator.Send(StartRanks("warm", 1, {{"ready", "exit 0 OK"}, {"ready", "exit 0 OK"}}));
  coordinator.WaitFor("warm", 1, v1::ATTEMPT_STATE_ENDED);
  coordinator.Send(AttemptAck("warm", 1));
  ASSERT_TRUE(Eventually(
      [&] { return !std::filesystem::exists(agent.work_dir() + "/journal/warm.1.json"); }));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const size_t before = agent.OpenDescriptors();
  for (int64_t epoch = 1; epoch <= 10; ++epoch) {
    coordinator.Send(
        StartRanks("many", epoch, {{"ready", "log hello", "exit 0 OK"}, {"ready", "exit 3"}}));
    coordinator.WaitFor("many", epoch, v1::ATTEMPT_STATE_ENDED);
    coordinator.Send(AttemptAck("many", epoch));
  }
  EXPECT_TRUE(Eventually([&] { return agent.OpenDescriptors() == before; }))
      << before << " " << agent.OpenDescriptors();
  EXPECT_EQ(agent.Zombies(), 0);
}

TEST_F(AgentProcessTest, SigtermStopsTheRanksAndExitsWithZero) {
  coordinator.Send(StartRanks("served", 1, {{"ready", "stall"}, {"ready", "stall"}}));
  const std::vector<pid_t> pids = RunningPids("served", 1);
  EXPECT_EQ(agent.Kill(SIGTERM), 0);
  for (const pid_t pid : pids) EXPECT_FALSE(Alive(pid));
  const v1::AttemptStatus end = coordinator.WaitFor("served", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.stop_reason(), "the node's agent was told to end");
}

}  // namespace
}  // namespace switchyard::agent
