// A Hugging Face config.json as numbers: the shape of a decoder and what follows from it.
//
// One arithmetic for the planner and the trainer: parameter counts, FLOPs. Model types that are not
// known, and config keys that would change the mathematics, are refused by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

// Shape of a parametric GQA decoder with dense and mixture-of-experts layers.
struct ModelShape {
  std::string model_type;   // "qwen3_moe"
  int64_t hidden_size = 0;  // D
  int64_t num_layers = 0;
  int64_t num_heads = 0;     // query heads, H
  int64_t num_kv_heads = 0;  // key/value heads; divides num_heads
  int64_t head_dim = 0;
  bool attention_bias = false;        // of the q, k, v and o projections
  int64_t vocab_size = 0;             // V
  int64_t intermediate_size = 0;      // FFN of dense layers
  int64_t moe_intermediate_size = 0;  // F, FFN of one expert
  int64_t num_experts = 0;            // E
  int64_t experts_per_token = 0;      // k
  bool norm_topk_prob = false;        // renormalise the k router weights to sum 1
  double router_aux_loss_coef = 0;
  double rms_norm_eps = 0;
  double rope_theta = 0;
  int64_t max_position_embeddings = 0;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  std::string torch_dtype;    // dtype named by the config; empty when none
  int64_t pad_token_id = -1;  // its embedding row gets no gradient (torch's padding_idx); -1 none
  std::vector<bool> is_moe_layer;  // [num_layers], from mlp_only_layers and decoder_sparse_step

  int64_t num_moe_layers() const;
  // Elements of all parameters (a tied head is counted once).
  int64_t NumParameters() const;
  // Elements of the routed experts' parameters.
  int64_t NumExpertParameters() const;
  // Elements that take part in one token (k of E experts).
  int64_t NumActiveParameters() const;
  // FLOPs of forward and backward of one token in a sequence of `sequence_length` (causal
  // attention, mean context sequence_length / 2): 6 x active matrix parameters + 6 x layers x S x H
  // x head_dim.
  double TrainingFlopsPerToken(int64_t sequence_length) const;
};

// Parses the text of a config.json. Keys that it leaves out have the defaults of Transformers'
// config class. InvalidArgument names every offending key with its value and what is supported.
absl::StatusOr<ModelShape> ParseModelConfig(const std::string& config_json);
// Reads `model_dir`/config.json. NotFound when it is missing.
absl::StatusOr<ModelShape> ReadModelConfig(const std::string& model_dir);

}  // namespace switchyard
