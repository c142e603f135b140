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

// Of attention's arguments. On CPU they are the columns of a [T, (H + 2G) C] tensor; on CUDA those
// of keys and values are contiguous.
struct QkvGradient {
  at::Tensor query;  // [T, H C]
  at::Tensor key;    // [T, G C]
  at::Tensor value;  // [T, G C]
};

// grad_qkv [T, (H + 2G) C]: the gradient of qkv, from that of qk and of the values; on CPU it is
// the tensor whose columns `grad` is. On CUDA cos and sin are planes of one [T, C / 2, 2] tensor.
void QkNormRopeBackward(const QkNormRope& op, const at::Tensor& qkv, const QkvGradient& grad,
                        at::Tensor grad_qkv, const WeightGradient& grad_query_weight,
                        const WeightGradient& grad_key_weight);

}  // namespace switchyard::trainer::ops
