// The trainer's configuration: train.json as a struct, checked.
//
// The schema is proto/switchyard/trainer/v1/config.proto, where every field is explained; names
// here are the same. Knows nothing of models and data: what contradicts them is found when they are
// read.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace switchyard::trainer {

struct TrainerConfig {
  struct Training {
    int64_t total_steps = 0;
    int64_t global_batch_sequences = 0;
    int64_t micro_batch_sequences = 0;
    double learning_rate = 0;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double eps = 1e-8;
    double weight_decay = 0;
    int64_t warmup_steps = 0;
    std::string schedule = "cosine";
    double min_learning_rate_ratio = 0;
    double max_grad_norm = 0;
    int64_t seed = 0;
    double router_aux_loss_coef = 0;
    bool deterministic = true;
    int64_t eval_interval_steps = 0;
    std::string activation_memory;  // empty: as RankMemoryInput without a value
  };
  struct Checkpoint {
    std::string output;
    int64_t interval_steps = 0;
  };

  std::string job = "job";
  std::string job_uid = "local";
  int64_t epoch = 1;
  int64_t ranks = 1;
  int64_t expert_parallel = 1;
  std::string device = "cpu";
  std::string precision = "float32";
  std::string optimizer = "exact";
  std::string model;
  std::string train_data;
  std::string eval_data;
  int64_t sequence_length = 0;
  Training training;
  Checkpoint checkpoint;
  std::string resume_from;
  int64_t threads = 0;
  int64_t expert_load_interval_steps = 10;

  // Of a checkpoint being written in this attempt. No other attempt and no other job writes there,
  // whatever directory it was given.
  std::string StagePath(int64_t step) const;
  std::string CheckpointPath(int64_t step) const;
  std::string FinalStagePath() const;
  std::string FinalPath() const;
};

// InvalidArgument lists every unknown field, wrong type and value out of range, one a line.
absl::StatusOr<TrainerConfig> ParseTrainerConfig(const std::string& json_text);
// The same for a file. NotFound when it cannot be read.
absl::StatusOr<TrainerConfig> ReadTrainerConfig(const std::string& path);

}  // namespace switchyard::trainer
