#include "coordinator/plan/plan_text.h"

#include <gmock/gmock.h>

#include "absl/strings/str_split.h"
#include "tests/coordinator/plan/plan_fixtures.h"

namespace switchyard::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::Plan HandMadePlan() {
  v1::Plan plan;
  plan.set_feasible(true);
  plan.set_ranks(4);
  plan.set_expert_parallel(2);
  plan.set_expert_data_parallel(2);
  plan.set_device("cpu");
  plan.set_precision("float32");
  plan.set_optimizer("exact");
  plan.set_micro_batch_sequences(8);
  plan.set_gradient_accumulation(1);
  plan.set_global_batch_sequences(32);
  plan.set_sequence_length(256);
  plan.set_total_steps(157);
  plan.set_total_tokens(1'286'144);
  plan.set_tokens_per_second(1314.6);
  plan.mutable_duration()->set_seconds(978);
  plan.set_model_parameters(11'500'000);
  plan.set_active_parameters(4'420'000);
  plan.set_checkpoint_bytes(132 << 20);
  plan.set_disk_needed_bytes(528 << 20);
  plan.set_disk_free_bytes(int64_t{20} << 30);
  auto* parameters = plan.add_memory();
  parameters->set_name("parameters");
  parameters->set_bytes(300 << 20);
  auto* optimizer = plan.add_memory();
  optimizer->set_name("optimizer");
  optimizer->set_bytes(100 << 20);
  plan.add_memory()->set_name("windows");
  plan.set_memory_bytes_per_rank(400 << 20);
  plan.set_memory_capacity_bytes_per_rank(1 << 30);
  auto* slower = plan.add_rejected();
  slower->set_ranks(4);
  slower->set_expert_parallel(2);
  slower->set_micro_batch_sequences(4);
  slower->set_reason("predicted 1,200 tokens/s, 8.7 % less than 1,315");
  (*plan.mutable_defaults())["training.seed"] = "0";
  (*plan.mutable_defaults())["training.beta1"] = "0.9";
  return plan;
}

TEST(PlanTextTest, ShowsMeshMemorySpeedTimeAndWhatWasRejected) {
  EXPECT_EQ(
      RenderPlan(HandMadePlan()),
      "Plan\n"
      "  mesh               4 ranks on cpu = 2 expert-parallel x 2 replicas\n"
      "  batch              32 sequences of 256 tokens a step; a rank takes 8 at once, 1 time\n"
      "  model              11.5 M parameters, 4.42 M active a token\n"
      "  numerics           float32, optimizer exact\n"
      "  speed              1,315 tokens/s predicted\n"
      "  time               16 m 18 s predicted, 157 steps, 1.29 M tokens\n"
      "  checkpoints        132 MiB each; 528 MiB needed with those kept, 20.0 GiB free\n"
      "Memory a rank\n"
      "  parameters            300 MiB  29.3 % #########\n"
      "  optimizer             100 MiB   9.8 % ###\n"
      "  total                 400 MiB  39.1 % of 1.00 GiB\n"
      "Rejected\n"
      "  ranks 4    ep 2    micro 4    predicted 1,200 tokens/s, 8.7 % less than 1,315\n"
      "Defaults\n"
      "  training.beta1=0.9 training.seed=0\n");
}

TEST(PlanTextTest, AnInfeasiblePlanLeadsWithProblemsAndWhatWouldFit) {
  v1::Plan plan = HandMadePlan();
  plan.set_feasible(false);
  plan.add_problems("no choice fits: the smallest needs 81.0 GiB a rank");
  plan.add_nearest("training.optimizer: exact -> compact");
  const std::string text = RenderPlan(plan, {.defaults = false});
  EXPECT_THAT(text, ::testing::StartsWith("No plan fits\n"));
  EXPECT_THAT(text, HasSubstr("Problems\n  - no choice fits: the smallest needs 81.0 GiB a rank\n"
                              "What would fit\n  - training.optimizer: exact -> compact\n"));
  EXPECT_THAT(text, Not(HasSubstr("tokens/s predicted")));
  EXPECT_THAT(text, Not(HasSubstr("Defaults")));
}

TEST(PlanTextTest, NoLineOfARealPlanIsLongerThanAHundredColumns) {
  PlanInput infeasible = Qwen3On(GpuSlots(1, 8, "NVIDIA H100", int64_t{80} << 30));
  for (const PlanInput& input : {DemoInput(), infeasible}) {
    for (const auto& line : absl::StrSplit(RenderPlan(MakePlan(input)), '\n')) {
      EXPECT_LE(line.size(), 100u) << line;
    }
  }
}

TEST(PlanTextTest, ColoursOnlyWhenAsked) {
  EXPECT_THAT(RenderPlan(HandMadePlan()), Not(HasSubstr("\x1b")));
  EXPECT_THAT(RenderPlan(HandMadePlan(), {.color = true}), HasSubstr("\x1b[1;32mPlan\x1b[0m"));
}

TEST(PlanTextTest, SummarizesInOneLine) {
  EXPECT_EQ(SummarizePlan(HandMadePlan()),
            "4 ranks on cpu = 2 expert-parallel x 2 replicas, micro-batch 8 x 1, 400 MiB of 1.00 "
            "GiB a rank, "
            "1,315 tokens/s predicted");
  v1::Plan none;
  none.add_problems("no cpu slot is connected");
  EXPECT_EQ(SummarizePlan(none), "no plan fits: no cpu slot is connected");
}

}  // namespace
}  // namespace switchyard::coordinator
