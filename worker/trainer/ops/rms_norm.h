// Root-mean-square norm over the last dimension: y = weight * x / sqrt(mean(x^2) + eps).
//
// Statistics and arithmetic in float32; the normed value is rounded to x's dtype before it is
// multiplied by weight (Llama order).
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/trainer/ops/weight_gradient.h"

namespace switchyard::trainer::ops {

// out_TD = norm(x_TD). x and out may have any row stride; out may not alias x.
void RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight, double eps, at::Tensor out_TD);

// grad_x_TD += gradient of the norm's input; writes the gradient of weight.
void RmsNormBackward(const at::Tensor& grad_out_TD, const at::Tensor& x_TD,
                     const at::Tensor& weight, double eps, at::Tensor grad_x_TD,
                     const WeightGradient& grad_weight);

}  // namespace switchyard::trainer::ops
