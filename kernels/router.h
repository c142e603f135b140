// Router: softmax over experts, top-k, weights, and its gradient including the load-balancing loss.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

inline constexpr int kMaxRouterExperts = 512;
inline constexpr int kMaxTopK = 32;

// p = softmax(logits) in float32; the k largest p (ties: lower expert first) in falling order;
// weight = p, or p / sum of the k with `renormalise`, rounded to bfloat16 as the reference models
// do. Tokens that are not valid get expert -1 and weight 0 and are in no sum.
struct RouterForwardParams {
  const nv_bfloat16* logits_TE;  // [T, E]
  const bool* valid_T;           // [T]; null for all
  int32_t* expert_TK;            // [T, K]
  float* weight_TK;              // [T, K]
  int32_t* count_E;              // [E] += choices of each expert; zero it first
  float* probability_sum_E;      // [E], overwritten: sum of p over tokens; null when not wanted
  float* entropy_sum;            // [1], overwritten: sum over tokens of -sum p log p; null when not
                                 // wanted
  int64_t num_tokens;            // T
  int32_t num_experts;           // E, at most 512
  int32_t top_k;                 // K, at most 32
  bool renormalise;
};

int64_t RouterForwardWorkspaceBytes(int32_t num_experts);
// Deterministic (counts are integers). Moves about T * E * 2 bytes; latency-bound at 4,096 tokens.
cudaError_t RouterForward(const RouterForwardParams& params, void* workspace, cudaStream_t stream);

// grad_logits = softmax gradient of (scatter of grad_weight through the renormalisation, plus
// balance_gradient_E[e] on every p[t][e]). Pass aux_coefficient * E * fraction_E / T as balance
// gradient.
struct RouterBackwardParams {
  const nv_bfloat16* logits_TE;     // [T, E], the forward's
  const bool* valid_T;              // [T]; null for all. Other rows get gradient 0
  const int32_t* expert_TK;         // [T, K]
  const float* grad_weight_TK;      // [T, K]
  const float* balance_gradient_E;  // [E]; null for none
  nv_bfloat16* grad_logits_TE;      // [T, E]; may alias logits
  int64_t num_tokens;
  int32_t num_experts;
  int32_t top_k;
  bool renormalise;
};

cudaError_t RouterBackward(const RouterBackwardParams& params, cudaStream_t stream);

}  // namespace switchyard::kernels
