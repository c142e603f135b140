// From router logits to experts and weights: softmax over all experts, the K largest, optionally
// renormalised.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace switchyard::trainer::ops {

struct RouterRule {
  int64_t top_k = 0;
  bool renormalize = false;  // the K weights of a token sum to 1
};

// What load balancing and reports need of one layer's routing; sums over valid tokens.
struct RouterStatistics {
  at::Tensor count_E;        // int32: choices of each expert
  at::Tensor probability_E;  // float32: its probabilities
  at::Tensor entropy;        // float32 [1]: entropies of the tokens' distributions, nats
};

// Writes expert_TK (int64; CUDA: int32), weight_TK (float32) and the statistics from logits_TE.
// Tokens that are not valid_T get expert -1 and weight 0.
void RouteTokens(const RouterRule& rule, const at::Tensor& logits_TE, const at::Tensor& valid_T,
                 at::Tensor expert_TK, at::Tensor weight_TK, const RouterStatistics& statistics);

// grad_logits_TE from the gradient of the weights and, for each valid token, the gradient
// grad_probability_E of its probabilities (float32; undefined for none). Rows that are not valid
// become 0. grad_logits_TE may be logits_TE.
void RouteTokensBackward(const RouterRule& rule, const at::Tensor& grad_weight_TK,
                         const at::Tensor& grad_probability_E, const at::Tensor& logits_TE,
                         const at::Tensor& expert_TK, const at::Tensor& valid_T,
                         at::Tensor grad_logits_TE);

}  // namespace switchyard::trainer::ops
