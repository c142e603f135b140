// Norm of every query and key head, then rotary position embedding in half layout.
//
// One row of qkv is [H query heads, G key heads, G value heads] of C elements. With (a, b) the
// halves of a normed head: (a cos - b sin, b cos + a sin).
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/trainer/ops/weight_gradient.h"

namespace switchyard::trainer::ops {

struct QkNormRope {
  at::Tensor query_weight;  // [C]
  at::Tensor key_weight;    // [C]
  double eps = 0;
  int64_t num_heads = 0;     // H
  int64_t num_kv_heads = 0;  // G
  int64_t head_dim = 0;      // C
  at::Tensor cos;            // float32 [T, C / 2]
  at::Tensor sin;
};

// Writes cos and sin (float32 [T, C / 2]) of position times theta^(-2i / C).
void RotaryTables(const at::Tensor& position_T, double theta, at::Tensor cos, at::Tensor sin);

// qk [T, (H + G) C] from qkv [T, (H + 2G) C].
void QkNormRopeForward(const QkNormRope& op, const at::Tensor& qkv, at::Tensor qk);

// grad_qk [T, (H + G) C] is the gradient of qk; the first H + G heads of grad_qkv [T, (H + 2G) C]
// become the gradient of qkv's. On CPU grad_qk may be these heads of grad_qkv; on CUDA it is
// contiguous, and cos and sin are planes of one [T, C / 2, 2] tensor.
void QkNormRopeBackward(const QkNormRope& op, const at::Tensor& qkv, const at::Tensor& grad_qk,
                        at::Tensor grad_qkv, const WeightGradient& grad_query_weight,
                        const WeightGradient& grad_key_weight);

}  // namespace switchyard::trainer::ops
