// h = silu(gate) * up [* weight of the row], with gate and up the halves of one row.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::trainer::ops {

// out [R, F] from gate_up [R, 2F]. weight_R: float32 router weights, or undefined for 1. num_rows:
// on CUDA, int32 [1] there, the rows to compute; undefined for all.
void SwiGlu(const at::Tensor& gate_up, const at::Tensor& weight_R, at::Tensor out,
            const at::Tensor& num_rows = {});

// gate_up [R, 2F] becomes its own gradient; out [R, F] receives the forward's output once more,
// which the gradient of the next projection needs; grad_weight_R (float32; undefined without
// weight_R) the gradient of weight_R.
void SwiGluBackward(const at::Tensor& grad_out, const at::Tensor& weight_R, at::Tensor gate_up,
                    at::Tensor out, at::Tensor grad_weight_R, const at::Tensor& num_rows = {});

}  // namespace switchyard::trainer::ops
