// Each side of the trainer's lines fed to the other: the trainer writes and reads with
// nlohmann-json, the agent with protobuf's JSON.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "worker/agent/host/lines.h"
#include "worker/trainer/train/lines.h"

namespace switchyard {
namespace {

using agent::FormatAgentLine;
using agent::ParseTrainerLine;

trainer::v1::TrainerLine Parse(const std::string& line) {
  EXPECT_EQ(line.find('\n'), std::string::npos) << line;
  const auto parsed = ParseTrainerLine(line);
  EXPECT_TRUE(parsed.ok()) << parsed.status() << " " << line;
  return parsed.ok() ? *parsed : trainer::v1::TrainerLine();
}

TEST(LinesContractTest, AStepSurvivesWithEveryField) {
  trainer::StepReport report;
  report.step = (int64_t{1} << 40) + 1;
  report.loss = 1.25;
  report.aux_loss = 0.5;
  report.learning_rate = 1e-5;
  report.grad_norm = 3;
  report.tokens = 4096;
  report.targets = 4000;
  report.step_seconds = 0.75;
  report.phase_seconds = {{"forward", 0.25}, {"all_to_all", 0.125}};
  report.peak_memory_bytes = int64_t{80} << 30;
  report.skipped = true;
  report.expert_load_max_over_mean = 1.5;
  report.dead_experts = 3;
  report.router_entropy_ratio = 0.9;
  report.arena_high_water_bytes = 12345;
  const auto line = Parse(trainer::StepLine(report));
  ASSERT_TRUE(line.has_step());
  const auto& step = line.step();
  EXPECT_EQ(step.step(), report.step);
  EXPECT_EQ(step.loss(), 1.25);
  EXPECT_EQ(step.aux_loss(), 0.5);
  EXPECT_EQ(step.learning_rate(), 1e-5);
  EXPECT_EQ(step.grad_norm(), 3);
  EXPECT_EQ(step.tokens(), 4096);
  EXPECT_EQ(step.targets(), 4000);
  EXPECT_EQ(step.step_seconds(), 0.75);
  EXPECT_EQ(step.phase_seconds().at("all_to_all"), 0.125);
  EXPECT_EQ(step.peak_memory_bytes(), report.peak_memory_bytes);
  EXPECT_TRUE(step.skipped());
  EXPECT_EQ(step.expert_load_max_over_mean(), 1.5);
  EXPECT_EQ(step.dead_experts(), 3);
  EXPECT_EQ(step.router_entropy_ratio(), 0.9);
  EXPECT_EQ(step.arena_high_water_bytes(), 12345);
}

TEST(LinesContractTest, NanAndInfinitiesAreNotReadAsZero) {
  trainer::StepReport report;
  report.loss = std::nan("");
  report.grad_norm = std::numeric_limits<double>::infinity();
  report.aux_loss = -std::numeric_limits<double>::infinity();
  const auto line = Parse(trainer::StepLine(report));
  EXPECT_TRUE(std::isnan(line.step().loss()));
  EXPECT_EQ(line.step().grad_norm(), std::numeric_limits<double>::infinity());
  EXPECT_EQ(line.step().aux_loss(), -std::numeric_limits<double>::infinity());
  EXPECT_TRUE(std::isnan(Parse(trainer::EvalLine(3, std::nan(""), 7)).eval().loss()));
}

TEST(LinesContractTest, LifecycleLinesSurvive) {
  EXPECT_EQ(Parse(trainer::RendezvousLine("token \"quoted\"\\")).rendezvous().id(),
            "token \"quoted\"\\");
  const auto ready = Parse(trainer::ReadyLine(3, 200, 1 << 30));
  EXPECT_EQ(ready.ready().rank(), 3);
  EXPECT_EQ(ready.ready().resumed_from_step(), 200);
  EXPECT_EQ(ready.ready().arena_bytes(), 1 << 30);
  const auto phase = Parse(trainer::PhaseLine("loading", 0.5));
  EXPECT_EQ(phase.phase().name(), "loading");
  EXPECT_EQ(phase.phase().progress(), 0.5);
  const auto shard =
      Parse(trainer::CheckpointShardLine({1, 40, "/o/.stage", "/o/final", true, 99}));
  EXPECT_EQ(shard.checkpoint_shard().rank(), 1);
  EXPECT_EQ(shard.checkpoint_shard().step(), 40);
  EXPECT_EQ(shard.checkpoint_shard().stage_path(), "/o/.stage");
  EXPECT_EQ(shard.checkpoint_shard().final_path(), "/o/final");
  EXPECT_TRUE(shard.checkpoint_shard().final());
  EXPECT_EQ(shard.checkpoint_shard().bytes(), 99);
  const auto exit = Parse(trainer::ExitLine("PEER_LOST", "rank 2\nis gone \xff", 41));
  EXPECT_EQ(exit.exit().code(), "PEER_LOST");
  EXPECT_EQ(exit.exit().step(), 41);
  EXPECT_EQ(exit.exit().message().substr(0, 14), "rank 2\nis gone");
}

TEST(LinesContractTest, ExpertLoadSurvives) {
  const auto line = Parse(trainer::ExpertLoadLine({9, 2, {0, 3}, {{5, 6}, {7, 8}}}));
  ASSERT_EQ(line.expert_load().layers_size(), 2);
  EXPECT_EQ(line.expert_load().num_experts(), 2);
  EXPECT_EQ(line.expert_load().layers(1).layer(), 3);
  EXPECT_EQ(line.expert_load().layers(1).tokens_per_expert(0), 7);
}

TEST(LinesContractTest, TheTrainerReadsWhatTheAgentWrites) {
  trainer::v1::AgentLine line;
  line.mutable_rendezvous()->set_id("token \"quoted\"\n");
  EXPECT_EQ(trainer::ParseAgentLine(FormatAgentLine(line)).rendezvous_id, "token \"quoted\"\n");
  line.mutable_checkpoint_now()->set_then_stop(true);
  auto read = trainer::ParseAgentLine(FormatAgentLine(line));
  EXPECT_TRUE(read.checkpoint_now && read.then_stop && !read.stop);
  line.mutable_checkpoint_now()->set_then_stop(false);
  read = trainer::ParseAgentLine(FormatAgentLine(line));
  EXPECT_TRUE(read.checkpoint_now && !read.then_stop);
  line.mutable_stop()->set_reason("cancelled");
  read = trainer::ParseAgentLine(FormatAgentLine(line));
  EXPECT_TRUE(read.stop);
  EXPECT_EQ(read.stop_reason, "cancelled");
}

}  // namespace
}  // namespace switchyard
