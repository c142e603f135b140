#include "worker/trainer/train/trainer_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace switchyard::trainer {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json Valid() {
  return {{"job", "demo"},
          {"job_uid", "0b5c-1"},
          {"epoch", "3"},  // protobuf's JSON writes int64 as a string
          {"ranks", 4},
          {"expert_parallel", 2},
          {"device", "cpu"},
          {"precision", "bfloat16"},
          {"optimizer", "exact"},
          {"model", "/models/m"},
          {"train_data", "/data/train"},
          {"sequence_length", 128},
          {"training",
           {{"total_steps", "100"},
            {"global_batch_sequences", 8},
            {"micro_batch_sequences", 2},
            {"learning_rate", 1e-4},
            {"beta1", 0.9},
            {"beta2", 0.95},
            {"eps", 1e-8},
            {"schedule", "linear"},
            {"seed", "18446744"}}},
          {"checkpoint", {{"output", "/out"}, {"interval_steps", 50}}}};
}

std::string ErrorOf(const json& config) {
  return std::string(ParseTrainerConfig(config.dump()).status().message());
}

TEST(TrainerConfigTest, ReadsNumbersAndInt64Strings) {
  const absl::StatusOr<TrainerConfig> config = ParseTrainerConfig(Valid().dump());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->epoch, 3);
  EXPECT_EQ(config->training.total_steps, 100);
  EXPECT_EQ(config->training.seed, 18446744);
  EXPECT_EQ(config->training.schedule, "linear");
  EXPECT_EQ(config->expert_load_interval_steps, 10);
  EXPECT_EQ(config->StagePath(7), "/out/checkpoints/.stage-0b5c-1-e3-step-7");
  EXPECT_EQ(config->FinalStagePath(), "/out/.stage-0b5c-1-e3-final");
}

TEST(TrainerConfigTest, NamesEveryUnknownField) {
  json config = Valid();
  config["learning_rte"] = 1;
  config["training"]["warmup"] = 1;
  const std::string error = ErrorOf(config);
  EXPECT_THAT(error, HasSubstr("learning_rte is not a known field"));
  EXPECT_THAT(error, HasSubstr("training.warmup is not a known field"));
}

TEST(TrainerConfigTest, NamesFieldValueAndLimitOfEverythingOutOfRange) {
  json config = Valid();
  config["ranks"] = 0;
  config["precision"] = "float16";
  config["job_uid"] = "a/b";
  config["training"]["beta2"] = 1.0;
  config["training"]["activation_memory"] = "none";
  config["training"]["total_steps"] = "many";
  config["checkpoint"].erase("output");
  const std::string error = ErrorOf(config);
  EXPECT_THAT(error, HasSubstr("ranks is 0; must be at least 1"));
  EXPECT_THAT(error, HasSubstr("precision is \"float16\"; must be one of float32, bfloat16"));
  EXPECT_THAT(error, HasSubstr("job_uid is \"a/b\"; may hold letters, digits, - and _ only"));
  EXPECT_THAT(error, HasSubstr("training.beta2 is 1; must be at least 0 and below 1"));
  EXPECT_THAT(error, HasSubstr("training.activation_memory is \"none\"; must be one of save_all, "
                               "recompute_rows, recompute_gate_up, recompute_layer"));
  EXPECT_THAT(error, HasSubstr("training.total_steps is \"many\"; must be an integer"));
  EXPECT_THAT(error, HasSubstr("checkpoint.output is missing"));
}

TEST(TrainerConfigTest, RefusesTheCompactOptimizerOnACpu) {
  json config = Valid();
  config["optimizer"] = "compact";
  EXPECT_THAT(ErrorOf(config), HasSubstr("needs device cuda"));
}

TEST(TrainerConfigTest, RefusesWhatIsNotAnObject) {
  EXPECT_THAT(std::string(ParseTrainerConfig("[1]").status().message()),
              HasSubstr("not a JSON object"));
  EXPECT_THAT(std::string(ParseTrainerConfig("{").status().message()),
              HasSubstr("not a JSON object"));
}

}  // namespace
}  // namespace switchyard::trainer
