// A coordinator that means ill, or was deceived, and the real agent: paths outside of what the node
// allows are neither read, written, prepared, published nor removed, and secrets reach no child.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/agent/support/agent_process.h"
#include "tests/agent/support/scripted_coordinator.h"
#include "tests/agent/support/temporary_directory.h"

namespace switchyard::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class PathGuard : public ::testing::Test {
 protected:
  PathGuard() {
    dir.Write("models/m/config.json", "{}");
    dir.Write("models/m/model.safetensors", "x");
    dir.Write("data/train.jsonl", "{}");
    dir.Write("secret/config.json", "{}");
    dir.Write("secret/model.safetensors", "x");
    std::filesystem::create_directory(dir / "out");
    std::filesystem::create_directory_symlink(dir / "secret", dir / "models/link");
    std::filesystem::create_directory_symlink(dir / "secret", dir / "out/link");
    agent = std::make_unique<AgentProcess>(
        coordinator.address(),
        std::vector<std::string>{"--model-root", dir / "models", "--data-root", dir / "data",
                                 "--output-root", dir / "out"});
  }

  // What the agent finds wrong.
  std::string Probe(const std::string& model, const std::string& data, const std::string& output) {
    v1::ConnectResponse message;
    auto& probe = *message.mutable_probe_paths();
    probe.set_probe_id("probe-" + std::to_string(++probes));
    probe.set_job_uid("job");
    probe.set_epoch(1);
    probe.set_model(model);
    probe.add_data(data);
    probe.set_output(output);
    coordinator.Send(message);
    std::string problems;
    EXPECT_TRUE(Eventually([&] {
      for (const auto& said : coordinator.said()) {
        if (said.probe_result().probe_id() != probe.probe_id()) continue;
        for (const std::string& problem : said.probe_result().problems())
          problems += problem + "\n";
        return true;
      }
      return false;
    }));
    return problems;
  }
  v1::AttemptStatus Start(const std::string& job, const nlohmann::json& paths) {
    v1::ConnectResponse message;
    auto& start = *message.mutable_start_ranks();
    start.set_job_uid(job);
    start.set_epoch(1);
    start.set_job("projects/default/jobs/" + job);
    nlohmann::json config = {
        {"job_uid", job},
        {"epoch", 1},
        {"script", {{"0", {"ready", "exit 0 OK"}}}}};
    config.update(paths);
    start.add_ranks();
    start.set_trainer_config_json(config.dump());
    coordinator.Send(message);
    return coordinator.WaitFor(job, 1, v1::ATTEMPT_STATE_ENDED);
  }

  TemporaryDirectory dir;
  ScriptedCoordinator coordinator;
  std::unique_ptr<AgentProcess> agent;
  int probes = 0;
};

TEST_F(PathGuard, LooksOnlyWhereItMay) {
  EXPECT_EQ(Probe(dir / "models/m", dir / "data/train.jsonl", dir / "out/job"), "");
  EXPECT_THAT(Probe(dir / "secret", dir / "data/train.jsonl", dir / "out/a"),
              HasSubstr("on this node model is"));
  EXPECT_THAT(Probe(dir / "models/link", dir / "data/train.jsonl", dir / "out/a"),
              HasSubstr("on this node model is"));
  EXPECT_THAT(Probe(dir / "models/m", "/etc/passwd", dir / "out/a"),
              HasSubstr("on this node data is"));
  EXPECT_THAT(Probe(dir / "models/m", dir / "data/train.jsonl", dir / "out/link/a"),
              HasSubstr("on this node output is"));
  EXPECT_THAT(Probe(dir / "models/m", dir / "data/train.jsonl", dir / "out/../secret/a"),
              HasSubstr("on this node output is"));
  EXPECT_FALSE(std::filesystem::exists(dir / "secret/a"));
  EXPECT_FALSE(std::filesystem::exists(dir / "out/a")) << "nothing is made for a refused job";
}

TEST_F(PathGuard, StartsNoTrainerThatWouldReadOrWriteElsewhere) {
  const std::string model = dir / "models/m";
  EXPECT_EQ(Start("good", {{"model", model}}).ranks(0).exit().code(), "OK");
  const nlohmann::json bad[] = {{{"model", dir / "secret"}},
                                {{"model", model}, {"trainData", "/etc"}},
                                {{"model", model}, {"resume_from", dir / "out/link"}},
                                {{"model", model}, {"checkpoint", {{"output", "/var/tmp/x"}}}}};
  int number = 0;
  for (const nlohmann::json& paths : bad) {
    const auto end = Start("bad-" + std::to_string(++number), paths);
    EXPECT_EQ(end.ranks(0).exit().code(), "SPAWN_FAILED") << paths;
    EXPECT_THAT(end.ranks(0).exit().message(), HasSubstr("on this node")) << paths;
  }
}

TEST_F(PathGuard, PublishesAndRemovesNothingElsewhere) {
  dir.Write("secret/stage/x", "x");
  v1::ConnectResponse publish;
  publish.mutable_publish_checkpoint()->set_job_uid("job");
  publish.mutable_publish_checkpoint()->set_stage_path(dir / "secret/stage");
  publish.mutable_publish_checkpoint()->set_final_path(dir / "out/final");
  coordinator.Send(publish);
  v1::ConnectResponse remove;
  remove.mutable_remove_checkpoint()->set_job_uid("job");
  remove.mutable_remove_checkpoint()->set_path(dir / "out/link/stage");
  coordinator.Send(remove);
  std::string error;
  EXPECT_TRUE(Eventually([&] {
    for (const auto& said : coordinator.said()) {
      if (said.has_checkpoint_published()) error = said.checkpoint_published().error();
    }
    return !error.empty();
  }));
  EXPECT_THAT(error, HasSubstr("on this node checkpoint is"));
  EXPECT_TRUE(Eventually(
      [&] { return agent->stderr_text().find("checkpoint.removed") != std::string::npos; }));
  EXPECT_THAT(agent->stderr_text(), HasSubstr("outside of what this service may use"));
  EXPECT_TRUE(std::filesystem::exists(dir / "secret/stage/x"));
}

TEST(Environment, OfAgentsChildrenHoldsNoSecretAndNoLoaderTricks) {
  for (const char* name : {"SWITCHYARD_TOKEN", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"})
    setenv(name, name == std::string("LD_PRELOAD") ? "" : "hush-hush", 1);
  ScriptedCoordinator coordinator;
  AgentProcess agent(coordinator.address());
  v1::ConnectResponse message;
  auto& start = *message.mutable_start_ranks();
  start.set_job_uid("env");
  start.set_epoch(1);
  start.set_job("projects/default/jobs/env");
  start.add_ranks();
  start.set_trainer_config_json(
      R"({"job_uid": "env", "epoch": 1, "script": {"0": ["ready", "wait-line"]}})");
  coordinator.Send(message);
  const auto status = coordinator.WaitFor("env", 1, v1::ATTEMPT_STATE_RUNNING);
  for (const char* name : {"SWITCHYARD_TOKEN", "AWS_SECRET_ACCESS_KEY", "LD_PRELOAD"})
    unsetenv(name);
  ASSERT_EQ(status.ranks_size(), 1);
  std::ifstream file("/proc/" + std::to_string(status.ranks(0).pid()) + "/environ");
  const std::string environment((std::istreambuf_iterator<char>(file)), {});
  EXPECT_THAT(environment, HasSubstr("PATH="));
  for (const char* secret : {"hush-hush", "SWITCHYARD_TOKEN", "LD_PRELOAD"})
    EXPECT_THAT(environment, Not(HasSubstr(secret)));
}

}  // namespace
}  // namespace switchyard::agent
