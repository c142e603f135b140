// Jobs that GPU kernels could not do are refused by the plan.
#include <gmock/gmock.h>

#include "common/model/cuda_limits.h"
#include "common/units.h"
#include "coordinator/plan/planner.h"
#include "tests/coordinator/plan/plan_fixtures.h"

namespace switchyard::coordinator {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Lines(const google::protobuf::RepeatedPtrField<std::string>& lines) {
  return {lines.begin(), lines.end()};
}

TEST(CudaShapeTest, AModelThatNoGpuKernelTakesIsRefusedByKey) {
  PlanInput input = DemoInput();
  input.spec.clear_mesh();
  input.model.vocab_size = 8191;
  input.model.experts_per_token = 33;
  input.slots = GpuSlots(1, 4, "NVIDIA H200", 141'000'000'000);
  const v1::Plan plan = MakePlan(input);
  EXPECT_FALSE(plan.feasible());
  EXPECT_THAT(Lines(plan.problems()),
              ElementsAre(HasSubstr("vocab_size is 8191"), HasSubstr("num_experts_per_tok is 33")));

  // On CPUs it can be trained.
  for (const PlannerSlot& slot : CpuSlots(1, 4, 4, 6 * kGiB)) input.slots.push_back(slot);
  EXPECT_THAT(Lines(MakePlan(input).nearest()), ElementsAre("mesh.device: cuda -> cpu"));
  input.spec.mutable_mesh()->set_device("cpu");
  EXPECT_TRUE(MakePlan(input).feasible());
}

TEST(CudaShapeTest, AnExpertParallelGroupIsNotLargerThanKernelsTake) {
  PlanInput input = DemoInput();
  input.slots = GpuSlots(1, 16, "NVIDIA H200", 141'000'000'000);
  input.spec.mutable_training()->set_global_batch_sequences(16);
  input.spec.mutable_mesh()->set_ranks(16);
  input.spec.mutable_mesh()->set_expert_parallel(16);
  const v1::Plan plan = MakePlan(input);
  EXPECT_THAT(Lines(plan.problems()),
              ElementsAre("mesh.expert_parallel is 16; must be at most 8 on GPUs"));
  EXPECT_THAT(Lines(plan.nearest()), ElementsAre(HasSubstr("mesh.expert_parallel: 16 -> ")));
}

TEST(CudaShapeTest, AMicroBatchThatOffsetsDoNotReachIsNeitherChosenNorAccepted) {
  PlanInput input = DemoInput();
  input.slots = GpuSlots(1, 1, "NVIDIA H200", 4'000'000'000'000);  // memory is no limit
  input.spec.clear_mesh();
  const int64_t most = MaxCudaTokens(input.model);
  input.spec.mutable_data()->set_sequence_length(static_cast<int32_t>(most / 2));
  input.spec.mutable_training()->set_global_batch_sequences(8);
  const v1::Plan plan = MakePlan(input);
  EXPECT_LE(plan.micro_batch_sequences() * static_cast<int64_t>(plan.sequence_length()), most);
  EXPECT_THAT(Lines(plan.problems()), Not(Contains(HasSubstr("a micro-batch of this model"))));

  input.spec.mutable_training()->set_micro_batch_sequences(8);
  EXPECT_THAT(Lines(MakePlan(input).problems()),
              Contains(HasSubstr("lower training.micro_batch_sequences")));
}

}  // namespace
}  // namespace switchyard::coordinator
