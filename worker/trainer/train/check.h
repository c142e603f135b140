// `switchyard-trainer check` on one rank: what the model computes for a given batch, for comparison
// with other frameworks.
//
// Rows of the batch are dealt to the ranks in order, all in one accumulation index, so the results
// are the same on any mesh.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/model/rank_memory.h"
#include "worker/trainer/optim/adamw.h"

namespace switchyard::trainer {

struct CheckOptions {
  std::string model;  // directory: config.json, *.safetensors
  // safetensors, int64 [B, S]: input_ids, labels (shifted inside, -100 for none) and, optionally,
  // position_ids: a position that does not follow the one before starts a document.
  std::string batch;
  // safetensors, float32: logits [B, S, V], loss (mean cross-entropy + router_aux_loss_coef x
  // aux_loss), aux_loss, grad.<checkpoint tensor> and, with steps, param.<checkpoint tensor>
  // afterwards. Written by rank 0.
  std::string out;
  int ranks = 1;
  int expert_parallel = 1;
  int rank = 0;
  std::string device = "cpu";
  Precision precision = Precision::kFloat32;
  std::optional<ActivationMemory> activations;  // as in RankMemoryInput
  int64_t steps = 0;
  double learning_rate = 1e-3;
  AdamWOptions adamw;
  double max_grad_norm = 0;  // 0: no clipping
  std::string job_uid = "check";
  std::string rendezvous_id;  // not needed by a single rank
};

// Collective. Throws TrainerError: kConfig, kModel, kData or kOutput, naming what is wrong;
// PeerLost; c10::Error.
void RunCheck(const CheckOptions& options);

}  // namespace switchyard::trainer
