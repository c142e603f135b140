// Data preparation by the real agent, with small Python programs in the place of prepare_data.py.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/agent/support/agent_process.h"
#include "tests/agent/support/scripted_coordinator.h"
#include "tests/agent/support/temporary_directory.h"
#include "worker/agent/core/types.h"

namespace switchyard::agent {
namespace {

using ::testing::HasSubstr;

class DataPreparationTest : public ::testing::Test {
 protected:
  // Has the agent prepare the data of epoch 1 of `job` by this program.
  void Prepare(const std::string& job, const std::string& program) {
    dir.Write("prepare_data.py",
              "import json, os, signal, sys, time\n"
              "def say(line): print(json.dumps(line), flush=True)\n" +
                  program);
    v1::ConnectResponse message;
    auto* prepare = message.mutable_prepare_data();
    prepare->set_job_uid(job);
    prepare->set_epoch(1);
    prepare->set_model("/m");
    prepare->set_train("/t.jsonl");
    prepare->set_sequence_length(64);
    prepare->set_output_dir("/o");
    coordinator.Send(message);
  }
  TemporaryDirectory dir;
  ScriptedCoordinator coordinator;
  AgentProcess agent{coordinator.address(),
                     {"--prepare-data", dir.Write("prepare_data.py", ""), "--python", "python3"}};
};

TEST_F(DataPreparationTest, TellsProgressAndResultAndThenRunsRanks) {
  Prepare("good",
          "say({'progress': 0.5})\n"
          "print('reading', sys.argv[sys.argv.index('--train') + 1], file=sys.stderr)\n"
          "time.sleep(0.5)\n"
          "say({'result': {'train_dir': '/o/x/train', 'train_sequences': 9}})\n");
  const v1::AttemptStatus prepared = coordinator.WaitFor("good", 1, v1::ATTEMPT_STATE_PREPARED);
  EXPECT_TRUE(prepared.data().ready());
  EXPECT_EQ(prepared.data().train_dir(), "/o/x/train");
  EXPECT_EQ(prepared.data().train_sequences(), 9);
  coordinator.WaitForLog("good", 1, kPreparationRank, "reading /t.jsonl\n");
  bool half = false;
  for (const auto& message : coordinator.said()) {
    half =
        half || (message.has_attempt_status() && message.attempt_status().data().progress() == 0.5);
  }
  EXPECT_TRUE(half);
  v1::ConnectResponse start;
  start.mutable_start_ranks()->set_job_uid("good");
  start.mutable_start_ranks()->set_epoch(1);
  start.mutable_start_ranks()->add_ranks();
  start.mutable_start_ranks()->set_trainer_config_json(
      R"({"script": {"0": ["ready", "exit 0 OK"]}})");
  coordinator.Send(start);
  EXPECT_EQ(coordinator.WaitFor("good", 1, v1::ATTEMPT_STATE_ENDED).ranks(0).exit().code(), "OK");
}

TEST_F(DataPreparationTest, TheUsersErrorIsToldInItsOwnWords) {
  Prepare("bad",
          "say({'error': {'message': 't.jsonl line 3: no assistant turn', 'user_error': "
          "True}})\nsys.exit(65)\n");
  const v1::AttemptStatus end = coordinator.WaitFor("bad", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.data().error(), "t.jsonl line 3: no assistant turn");
  EXPECT_TRUE(end.data().user_error());
}

TEST_F(DataPreparationTest, ACrashIsToldWithItsLastLine) {
  Prepare("crash", "raise RuntimeError('disk on fire')\n");
  const v1::AttemptStatus end = coordinator.WaitFor("crash", 1, v1::ATTEMPT_STATE_ENDED);
  EXPECT_EQ(end.data().error(),
            "data preparation ended with exit code 1: RuntimeError: disk on fire");
  EXPECT_FALSE(end.data().user_error());
}

TEST_F(DataPreparationTest, CanBeCancelledEvenIfItIgnoresSigterm) {
  Prepare("slow",
          "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(os.getpid(), file=sys.stderr, "
          "flush=True)\ntime.sleep(600)\n");
  const std::string log = coordinator.WaitForLog("slow", 1, kPreparationRank, "\n");
  v1::ConnectResponse stop;
  stop.mutable_stop_attempt()->set_job_uid("slow");
  stop.mutable_stop_attempt()->set_epoch(1);
  coordinator.Send(stop);
  EXPECT_EQ(coordinator.WaitFor("slow", 1, v1::ATTEMPT_STATE_ENDED).data().error(), "");
  EXPECT_FALSE(Alive(std::stoi(log)));
}

TEST_F(DataPreparationTest, DiesWithTheAgent) {
  Prepare("orphan", "print(os.getpid(), file=sys.stderr, flush=True)\ntime.sleep(600)\n");
  const pid_t pid = std::stoi(coordinator.WaitForLog("orphan", 1, kPreparationRank, "\n"));
  EXPECT_TRUE(Alive(pid));
  agent.Kill(SIGKILL);
  EXPECT_TRUE(Eventually([&] { return !Alive(pid); }, std::chrono::seconds(3)));
  agent.Start();
  const v1::Hello hello = coordinator.WaitForHello(2);
  ASSERT_EQ(hello.attempts_size(), 1);
  EXPECT_THAT(hello.attempts(0).data().error(), HasSubstr("agent died"));
}

TEST_F(DataPreparationTest, AMissingProgramIsASentence) {
  Prepare("gone", "");
  coordinator.WaitFor("gone", 1, v1::ATTEMPT_STATE_ENDED);
  std::filesystem::remove(dir / "prepare_data.py");
  v1::ConnectResponse message;
  message.mutable_prepare_data()->set_job_uid("missing");
  message.mutable_prepare_data()->set_epoch(1);
  coordinator.Send(message);
  EXPECT_THAT(coordinator.WaitFor("missing", 1, v1::ATTEMPT_STATE_ENDED).data().error(),
              HasSubstr("start the agent with --prepare-data PATH"));
}

}  // namespace
}  // namespace switchyard::agent
