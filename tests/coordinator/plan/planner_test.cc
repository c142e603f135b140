#include "coordinator/plan/planner.h"

#include <gmock/gmock.h>

#include "common/units.h"
#include "coordinator/plan/device_rates.h"
#include "coordinator/plan/plan_text.h"
#include "coordinator/plan/throughput_model.h"
#include "tests/coordinator/plan/plan_fixtures.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;
using ::testing::Not;

constexpr int64_t kH200Bytes = 141'000'000'000;
constexpr int64_t kH100Bytes = 80 * kGiB;
constexpr double kGiBd = 1 << 30;

std::vector<std::string> Lines(const google::protobuf::RepeatedPtrField<std::string>& lines) {
  return {lines.begin(), lines.end()};
}

// Golden plans. Bytes are checked against the model's published counts: 28.991 B expert and 1.541 B
// other parameters.

TEST(GoldenPlanTest, Qwen3On8H200TrainsExactlyWithFourWayExpertParallelism) {
  const v1::Plan plan = MakePlan(Qwen3On(GpuSlots(1, 8, "NVIDIA H200", kH200Bytes)));
  ASSERT_TRUE(plan.feasible()) << RenderPlan(plan);
  EXPECT_EQ(plan.ranks(), 8);
  EXPECT_EQ(plan.expert_parallel(), 4);
  EXPECT_EQ(plan.expert_data_parallel(), 2);
  EXPECT_EQ(plan.micro_batch_sequences(), 2);
  EXPECT_EQ(plan.gradient_accumulation(), 4);
  EXPECT_EQ(plan.device(), "cuda");
  EXPECT_EQ(plan.precision(), "bfloat16");
  EXPECT_EQ(plan.model_parameters(), 30'532'122'624);
  EXPECT_EQ(plan.total_steps(), 100);
  EXPECT_EQ(plan.total_tokens(), 100 * 64 * 4096);
  EXPECT_NEAR(static_cast<double>(BytesOf(plan, "parameters")), (28.991e9 / 4 + 1.541e9) * 2,
              0.02 * kGiBd);
  // float32 sums over the four micro-batches.
  EXPECT_EQ(BytesOf(plan, "gradients"), 2 * BytesOf(plan, "parameters"));
  // 10 bytes of moments and remainder, sharded over all ranks.
  EXPECT_NEAR(static_cast<double>(BytesOf(plan, "optimizer")), 30.532e9 * 10 / 8, 0.02 * kGiBd);
  // bfloat16 weights, float32 moments and 16-bit remainders.
  EXPECT_EQ(plan.checkpoint_bytes(), 12 * plan.model_parameters());
  EXPECT_EQ(plan.disk_needed_bytes(), 4 * plan.checkpoint_bytes());
  // Between the two lower rows of what these kernels could do, 14.6 to 18.5 thousand tokens/s a
  // GPU.
  EXPECT_THAT(plan.tokens_per_second() / 8, AllOf(Ge(14'600), Le(18'500)));
  EXPECT_THAT(Lines(plan.warnings()), Not(IsEmpty()));
}

TEST(GoldenPlanTest, Qwen3On8TimesEightyGibibytesRecomputesLayers) {
  PlanInput input = Qwen3On(GpuSlots(1, 8, "NVIDIA H100 80GB HBM3", kH100Bytes));
  const v1::Plan plan = MakePlan(input);
  ASSERT_TRUE(plan.feasible()) << RenderPlan(plan);
  EXPECT_EQ(plan.expert_parallel(), 8);
  EXPECT_EQ(plan.activation_memory(), "recompute_layer");
  EXPECT_LE(plan.memory_bytes_per_rank(), 0.95 * kH100Bytes);

  input.spec.mutable_training()->set_activation_memory("recompute_rows");
  const v1::Plan forced = MakePlan(input);
  ASSERT_EQ(forced.problems_size(), 1);
  EXPECT_THAT(forced.problems(0),
              HasSubstr("no choice fits: the smallest (ranks 8, expert_parallel 8, "
                        "micro_batch_sequences 1, activation_memory recompute_rows) needs 88.0 GiB "
                        "a rank, but of 80.0 GiB only 76.0 GiB may be used (largest parts: "
                        "optimizer 35.5 GiB, gradients 19.2 GiB, saved_activations 16.0 GiB)"));
  EXPECT_THAT(Lines(forced.nearest()),
              ElementsAre("training.activation_memory: recompute_rows -> recompute_layer"));
}

TEST(GoldenPlanTest, Qwen3On8TimesSeventyTwoGibibytesNeedsTheCompactOptimizer) {
  PlanInput input = Qwen3On(GpuSlots(1, 8, "NVIDIA H100", 72 * kGiB));
  const v1::Plan exact = MakePlan(input);
  EXPECT_FALSE(exact.feasible());
  EXPECT_EQ(exact.expert_parallel(), 8);
  EXPECT_EQ(exact.micro_batch_sequences(), 1);
  EXPECT_GT(exact.memory_bytes_per_rank(), 72 * kGiB);
  EXPECT_THAT(Lines(exact.nearest()), ElementsAre("training.optimizer: exact -> compact"));

  input.spec.mutable_training()->set_optimizer("compact");
  const v1::Plan compact = MakePlan(input);
  ASSERT_TRUE(compact.feasible()) << RenderPlan(compact);
  EXPECT_EQ(compact.ranks(), 8);
  EXPECT_NEAR(static_cast<double>(BytesOf(compact, "optimizer")), 30.532e9 * 4 / 8, 0.02 * kGiBd);
  EXPECT_EQ(compact.checkpoint_bytes(), 6 * compact.model_parameters());
}

TEST(GoldenPlanTest, TheDemoRunsOnFourCpuRanksOfTwoAgents) {
  const v1::Plan plan = MakePlan(DemoInput());
  ASSERT_TRUE(plan.feasible()) << RenderPlan(plan);
  EXPECT_EQ(plan.ranks(), 4);
  EXPECT_EQ(plan.expert_parallel(), 2);
  EXPECT_EQ(plan.expert_data_parallel(), 2);
  EXPECT_EQ(plan.micro_batch_sequences(), 2);
  EXPECT_EQ(plan.gradient_accumulation(), 1);
  EXPECT_EQ(plan.device(), "cpu");
  EXPECT_EQ(plan.precision(), "float32");
  EXPECT_EQ(plan.total_steps(), 319);  // 2,548 sequences, 8 a step
  // Highest VmHWM of the four ranks of such a run: 236 MiB.
  EXPECT_NEAR(static_cast<double>(plan.memory_bytes_per_rank()), 236.0 * kMiB, 0.15 * 236 * kMiB);
  EXPECT_EQ(plan.defaults().at("training.deterministic"), "true");
  EXPECT_EQ(plan.defaults().at("training.router_aux_loss_coef"), "0.01");
  EXPECT_EQ(plan.defaults().count("training.global_batch_sequences"), 0u);
}

TEST(PlannerTest, ExplainsTooFewSlotsAndNamesThoseThereAre) {
  PlanInput input = DemoInput();
  input.spec.mutable_mesh()->set_ranks(8);
  const v1::Plan plan = MakePlan(input);
  EXPECT_FALSE(plan.feasible());
  EXPECT_THAT(
      Lines(plan.problems()),
      ElementsAre(
          "mesh.ranks is 8 but only 4 cpu slots are connected (node0 2, node1 2); lower mesh.ranks "
          "or start agents with more slots"));
  EXPECT_THAT(Lines(plan.nearest()), ElementsAre("mesh.ranks: 8 -> 4"));
}

TEST(PlannerTest, ExplainsThatNoSlotIsConnected) {
  PlanInput input = DemoInput();
  input.slots.clear();
  EXPECT_THAT(
      Lines(MakePlan(input).problems()),
      ElementsAre(
          "no cpu slot is connected; start an agent with --cpu-slots, or set mesh.device to "
          "\"cuda\""));
  EXPECT_THAT(Lines(MakePlan(input).nearest()), IsEmpty());
  input = DemoInput();
  input.spec.mutable_mesh()->set_device("cuda");
  EXPECT_THAT(Lines(MakePlan(input).nearest()), ElementsAre("mesh.device: cuda -> auto"));
  EXPECT_THAT(
      Lines(MakePlan(input).problems()),
      ElementsAre(
          "no cuda slot is connected; start an agent on a machine with GPUs, or set mesh.device to "
          "\"cpu\""));
}

TEST(PlannerTest, RefusesCpuRanksAcrossMemoryDomains) {
  PlanInput input = DemoInput();
  for (PlannerSlot& slot : input.slots) slot.memory_domain = slot.node;
  const v1::Plan plan = MakePlan(input);
  EXPECT_FALSE(plan.feasible());
  EXPECT_THAT(
      Lines(plan.problems()),
      ElementsAre(
          "mesh.ranks is 4 but CPU ranks of one job must share a memory domain and the largest has "
          "2 slots (node0 2, node1 2); lower mesh.ranks or start the agents on one machine"));
  EXPECT_THAT(Lines(plan.nearest()), ElementsAre("mesh.ranks: 4 -> 2"));
}

TEST(PlannerTest, RefusesExpertParallelismThatDoesNotDivide) {
  PlanInput input = DemoInput();
  input.spec.mutable_mesh()->set_expert_parallel(3);
  input.spec.mutable_mesh()->set_ranks(3);
  EXPECT_THAT(
      Lines(MakePlan(input).problems()),
      ElementsAre("mesh.expert_parallel is 3; must divide the model's number of experts (32)"));
  input.spec.mutable_mesh()->set_expert_parallel(4);
  EXPECT_THAT(Lines(MakePlan(input).problems()),
              ElementsAre("mesh.expert_parallel is 4; must divide mesh.ranks (3)"));
}

TEST(PlannerTest, RefusesWhatTheDiskCannotHoldAndSaysHowManyCheckpointsIt) {
  PlanInput input = DemoInput();
  const int64_t checkpoint = MakePlan(input).checkpoint_bytes();
  input.disk_free_bytes = 3 * checkpoint;
  const v1::Plan plan = MakePlan(input);
  EXPECT_FALSE(plan.feasible());
  ASSERT_EQ(plan.problems_size(), 1);
  EXPECT_THAT(plan.problems(0),
              HasSubstr("checkpoint.output needs 493 MiB (checkpoints of 123 MiB, checkpoint.keep "
                        "2, one more while saving, and the final model) but only 370 MiB are "
                        "free under \"/out/job\"; free space, lower checkpoint.keep or choose "
                        "another output"));
  EXPECT_THAT(Lines(plan.nearest()), ElementsAre("checkpoint.keep: 2 -> 1"));
  input.disk_free_bytes = checkpoint;
  input.spec.mutable_checkpoint()->set_keep(1);
  EXPECT_THAT(MakePlan(input).problems(0), HasSubstr("free space or choose another output"));
  input.spec.mutable_checkpoint()->set_interval_steps(0);
  EXPECT_THAT(MakePlan(input).problems(0),
              HasSubstr("needs 247 MiB (a checkpoint of 123 MiB when it is paused, and the final "
                        "model) but only 123 MiB are free under \"/out/job\"; free space or "
                        "choose another output"));
  input.disk_free_bytes = -1;
  EXPECT_TRUE(MakePlan(input).feasible());
}

TEST(PlannerTest, ShrinksAMicroBatchThatTheUserSetTooLarge) {
  PlanInput input = Qwen3On(GpuSlots(1, 8, "NVIDIA H200", kH200Bytes));
  input.spec.mutable_training()->set_micro_batch_sequences(64);
  const v1::Plan plan = MakePlan(input);
  EXPECT_FALSE(plan.feasible());
  EXPECT_THAT(Lines(plan.nearest()), ElementsAre("training.micro_batch_sequences: 64 -> 2"));
}

TEST(PlannerTest, NeverSplitsAnExpertParallelGroupOverGpuNodes) {
  PlanInput input = Qwen3On(GpuSlots(4, 2, "NVIDIA H200", kH200Bytes));
  input.spec.mutable_training()->set_optimizer("compact");
  const v1::Plan plan = MakePlan(input);
  EXPECT_LE(plan.expert_parallel(), 2);
  EXPECT_THAT(plan.rejected(), ::testing::Contains(::testing::Property(
                                   &v1::PlanAlternative::reason_code, "CANNOT_BE_PLACED")));
}

TEST(PlannerTest, LeavesStepsOpenUntilTheDataIsPrepared) {
  PlanInput input = DemoInput();
  input.train_sequences.reset();
  const v1::Plan plan = MakePlan(input);
  EXPECT_TRUE(plan.feasible());
  EXPECT_EQ(plan.total_steps(), 0);
  EXPECT_FALSE(plan.has_duration());
  input.spec.mutable_training()->clear_epochs();
  input.spec.mutable_training()->set_steps(12);
  EXPECT_EQ(MakePlan(input).total_steps(), 12);
}

TEST(PlannerTest, PredictsTheTimeOfAllStepsFromTheSpeed) {
  const v1::Plan plan = MakePlan(DemoInput());
  const double seconds =
      static_cast<double>(plan.duration().seconds()) + 1e-9 * plan.duration().nanos();
  EXPECT_NEAR(seconds, static_cast<double>(plan.total_tokens()) / plan.tokens_per_second(),
              0.01 * seconds);
}

TEST(PlannerTest, WarnsOfPlacesThatStayEmpty) {
  PlanInput input = DemoInput();
  input.spec.mutable_training()->set_global_batch_sequences(7);
  EXPECT_THAT(Lines(MakePlan(input).warnings()),
              ::testing::Contains(
                  "training.global_batch_sequences (7) is not a multiple of ranks x "
                  "micro_batch_sequences (8): 1 of 8 places in every step are filled with empty "
                  "sequences"));
}

TEST(ThroughputModelTest, ExpectsTheNumberOfRemoteRanksOfEvenRouting) {
  EXPECT_EQ(ExpectedRemoteRanks(128, 8, 1), 0);
  EXPECT_NEAR(ExpectedRemoteRanks(128, 8, 4), 3.63 * 3 / 4, 0.01);
  EXPECT_NEAR(ExpectedRemoteRanks(128, 8, 8), 5.34 * 7 / 8, 0.01);
  EXPECT_NEAR(ExpectedRemoteRanks(4, 4, 2), 1, 1e-9);
}

TEST(ThroughputModelTest, NoTermIsNegativeAndMoreTokensTakeLonger) {
  ThroughputInput input;
  input.rank.model = DemoModel();
  input.rank.ranks = 4;
  input.rank.expert_parallel = 2;
  input.rank.sequence_length = 128;
  input.rates = RatesFor(DeviceKind::kCpu, "x86", Precision::kFloat32);
  double before = 0;
  for (int micro : {1, 2, 4, 8}) {
    input.rank.micro_batch_sequences = micro;
    const StepTime time = PredictStep(input);
    EXPECT_THAT((std::vector<double>{time.compute, time.exchange, time.reduction, time.optimizer,
                                     time.overhead}),
                Each(Ge(0)));
    EXPECT_GT(time.Total(), before);
    before = time.Total();
  }
}

}  // namespace
}  // namespace switchyard::coordinator
