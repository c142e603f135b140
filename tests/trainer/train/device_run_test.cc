// What a run on a GPU does where no GPU is needed to see it.
#include <gmock/gmock.h>

#include <fstream>

#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "tests/trainer/support/prepared_data.h"
#include "tests/trainer/train/stand_in_gpu.h"
#include "worker/trainer/train/training_run.h"

namespace switchyard::trainer {
namespace {

using ::testing::HasSubstr;

class DeviceRunTest : public CheckpointTest {
 protected:
  void SetUp() override {
    CheckpointTest::SetUp();
    TheStandInGpu() = {};
    WritePreparedData(Path("train"), 32, 40, CountingSequences(50, 32, 40, 1));
    config_.job = config_.job_uid = "job";
    config_.epoch = config_.ranks = config_.expert_parallel = 1;
    config_.device = "cuda";
    config_.precision = "bfloat16";
    config_.optimizer = "exact";
    config_.model = Path("");
    config_.train_data = Path("train");
    config_.sequence_length = 32;
    config_.training.total_steps = 10;
    config_.training.global_batch_sequences = 1;
    config_.training.micro_batch_sequences = 1;
    config_.checkpoint.output = Path("output");
  }
  // A dense model of one layer, without weights.
  void WriteModel(int vocab_size, int head_dim) const {
    std::ofstream(Path("config.json"))
        << R"({"model_type": "qwen3_moe", "hidden_size": 16, "num_hidden_layers": 1,
               "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24,
               "num_experts": 0, "head_dim": )"
        << head_dim << R"(, "vocab_size": )" << vocab_size << "}";
  }
  RunEnd Run() { return RunTraining(config_, "{}", 0, channels_); }

  TrainerConfig config_;
  RankChannels channels_{/*inherited=*/false};
};

TEST_F(DeviceRunTest, ARankThatCannotLoadLeavesItsGroupsAsOneThatFails) {
  WriteModel(40, 32);
  const RunEnd end = Run();
  EXPECT_EQ(end.code, ExitCode::kModel) << end.message;
  EXPECT_THAT(end.message, HasSubstr("safetensors"));
  EXPECT_EQ(TheStandInGpu().joined, 1);
  EXPECT_EQ(TheStandInGpu().left, 1);
  EXPECT_EQ(TheStandInGpu().left_failing, 1);
}

TEST_F(DeviceRunTest, AModelThatNoKernelTakesIsRefusedBeforeAnythingIsJoinedOrLoaded) {
  WriteModel(41, 24);
  const RunEnd end = Run();
  EXPECT_EQ(end.code, ExitCode::kConfig) << end.message;
  EXPECT_THAT(end.message, HasSubstr("vocab_size is 41; on a GPU it must be a multiple of 8"));
  EXPECT_THAT(end.message, HasSubstr("head_dim is 24; on a GPU it must be 32, 64 or 128"));
  EXPECT_EQ(TheStandInGpu().joined, 0);
}

TEST_F(DeviceRunTest, Float32IsRefused) {
  WriteModel(40, 32);
  config_.precision = "float32";
  const RunEnd end = Run();
  EXPECT_EQ(end.code, ExitCode::kConfig);
  EXPECT_THAT(end.message, HasSubstr("a GPU trains in \"bfloat16\""));
}

}  // namespace
}  // namespace switchyard::trainer
