// The trainer's configuration from spec, plan and prepared data.
#pragma once

#include <string>

#include "switchyard/agent/v1/agent.pb.h"
#include "switchyard/trainer/v1/config.pb.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/plan.pb.h"

namespace switchyard::coordinator {

struct TrainerConfigInput {
  v1::JobSpec spec;
  v1::Plan plan;               // feasible
  agent::v1::DataStatus data;  // ready
  std::string job_name;        // resource name
  std::string job_uid;
  int64_t epoch = 0;
  std::string resume_from;  // checkpoint directory or empty
};

// Optimizer steps of the job: spec.training.steps, or epochs over the prepared sequences. At
// least 1. Every epoch is rounded up by itself, as the trainer's BatchOrder ends each with a batch
// of its own (filled with empty sequences): two epochs of 9 sequences by 8 are 4 steps, not 3.
int64_t TotalSteps(const v1::JobSpec& spec, const v1::Plan& plan, int64_t train_sequences);

trainer::v1::TrainerConfig MakeTrainerConfig(const TrainerConfigInput& input);
// JSON as the trainer reads it: snake_case names, defaults written out.
std::string TrainerConfigJson(const trainer::v1::TrainerConfig& config);

}  // namespace switchyard::coordinator
