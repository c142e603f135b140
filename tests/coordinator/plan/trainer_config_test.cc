#include "coordinator/plan/trainer_config.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "tests/coordinator/plan/plan_fixtures.h"

namespace switchyard::coordinator {
namespace {

TrainerConfigInput DemoConfigInput() {
  TrainerConfigInput input;
  const PlanInput plan_input = DemoInput();
  input.spec = plan_input.spec;
  input.plan = MakePlan(plan_input);
  input.data.set_ready(true);
  input.data.set_train_dir("/out/job/data/train");
  input.data.set_eval_dir("/out/job/data/eval");
  input.data.set_train_sequences(2548);
  input.job_name = "projects/default/jobs/job";
  input.job_uid = "uid-1";
  input.epoch = 3;
  return input;
}

TEST(TrainerConfigTest, CarriesPlanDataAndEveryDefault) {
  TrainerConfigInput input = DemoConfigInput();
  input.resume_from = "/out/job/checkpoints/step-100";
  const trainer::v1::TrainerConfig config = MakeTrainerConfig(input);
  EXPECT_EQ(config.job(), "projects/default/jobs/job");
  EXPECT_EQ(config.job_uid(), "uid-1");
  EXPECT_EQ(config.epoch(), 3);
  EXPECT_EQ(config.ranks(), 4);
  EXPECT_EQ(config.expert_parallel(), 2);
  EXPECT_EQ(config.device(), "cpu");
  EXPECT_EQ(config.precision(), "float32");
  EXPECT_EQ(config.optimizer(), "exact");
  EXPECT_EQ(config.model(), "/models/m");
  EXPECT_EQ(config.train_data(), "/out/job/data/train");
  EXPECT_EQ(config.eval_data(), "/out/job/data/eval");
  EXPECT_EQ(config.sequence_length(), 256);
  EXPECT_EQ(config.checkpoint().output(), "/out/job");
  EXPECT_EQ(config.checkpoint().interval_steps(), 100);
  EXPECT_EQ(config.resume_from(), "/out/job/checkpoints/step-100");
  EXPECT_EQ(config.training().total_steps(), 319);
  EXPECT_EQ(config.training().warmup_steps(), 10);  // 3 % rounded up
  EXPECT_EQ(config.training().schedule(), "cosine");
  EXPECT_EQ(config.training().learning_rate(), 1e-5);
  EXPECT_EQ(config.training().max_grad_norm(), 1);
  EXPECT_EQ(config.training().router_aux_loss_coef(), 0.01);  // the model's
  EXPECT_TRUE(config.training().deterministic());
  EXPECT_EQ(config.training().global_batch_sequences(), 8);
  EXPECT_EQ(config.training().micro_batch_sequences(), input.plan.micro_batch_sequences());
}

TEST(TrainerConfigTest, WhatTheUserSetWins) {
  TrainerConfigInput input = DemoConfigInput();
  auto& training = *input.spec.mutable_training();
  training.clear_epochs();
  training.set_steps(40);
  training.set_router_aux_loss_coef(0);
  training.set_warmup_ratio(0);
  training.set_schedule("constant");
  const auto config = MakeTrainerConfig(input);
  EXPECT_EQ(config.training().total_steps(), 40);
  EXPECT_EQ(config.training().router_aux_loss_coef(), 0);
  EXPECT_EQ(config.training().warmup_steps(), 0);
  EXPECT_EQ(config.training().schedule(), "constant");
}

TEST(TrainerConfigTest, JsonHasSnakeCaseNamesAndZeroes) {
  const auto json = nlohmann::json::parse(TrainerConfigJson(MakeTrainerConfig(DemoConfigInput())));
  EXPECT_EQ(json["expert_parallel"], 2);
  EXPECT_EQ(json["resume_from"], "");
  EXPECT_EQ(json["training"]["weight_decay"], 0.0);
  EXPECT_EQ(json["training"]["learning_rate"], 1e-5);
  EXPECT_TRUE(json["checkpoint"].contains("interval_steps"));
}

TEST(TotalStepsTest, EveryEpochEndsWithAStepOfItsOwn) {
  v1::Plan plan;
  plan.set_global_batch_sequences(64);
  v1::JobSpec spec;
  EXPECT_EQ(TotalSteps(spec, plan, 128), 2);  // one epoch by default
  spec.mutable_training()->set_epochs(3);
  EXPECT_EQ(TotalSteps(spec, plan, 70), 6);
  spec.mutable_training()->set_epochs(0.5);
  EXPECT_EQ(TotalSteps(spec, plan, 640), 5);
  EXPECT_EQ(TotalSteps(spec, plan, 650), 6);
  EXPECT_EQ(TotalSteps(spec, plan, 1), 1);
  spec.mutable_training()->set_epochs(1.25);
  EXPECT_EQ(TotalSteps(spec, plan, 640), 13);
  spec.mutable_training()->clear_epochs();
  spec.mutable_training()->set_steps(7);
  EXPECT_EQ(TotalSteps(spec, plan, 640), 7);
}

}  // namespace
}  // namespace switchyard::coordinator
