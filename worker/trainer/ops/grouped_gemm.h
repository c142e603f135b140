// Products of rows sorted by expert with one matrix per expert.
//
// offset: rows of expert l are offset[l] .. offset[l + 1] - 1 of the whole list. The tensors of
// rows hold its rows begin .. begin + size - 1, so that long lists can be taken in
// pieces; on CUDA weight gradients take the whole list.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/trainer/ops/weight_gradient.h"

namespace switchyard::trainer::ops {

// A piece of a list of rows sorted by expert.
struct ExpertRows {
  at::Tensor offset_L1;  // int32 [L + 1], on the device of the rows
  int64_t begin = 0;
};

// out [n, N] = x [n, K] weight[l]^T with weight [L, N, K].
void GroupedGemm(const ExpertRows& rows, const at::Tensor& x, const at::Tensor& weight,
                 at::Tensor out);
// gate_up [n, 2F] = the product with weight [L, 2F, K], and h [n, F] = SwiGlu (swiglu.h) of it with
// the router weights weight_n.
void GroupedGemmSwiGlu(const ExpertRows& rows, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& weight_n, at::Tensor gate_up, at::Tensor h);
// out [n, K] = x [n, N] weight[l] with weight [L, N, K].
void GroupedGemmTransposed(const ExpertRows& rows, const at::Tensor& x, const at::Tensor& weight,
                           at::Tensor out);
// Gradient of weight [L, N, K]: grad^T x over each expert's rows, grad [n, N], x [n, K]. Pieces
// must come in order: the first piece of an expert sets its gradient (unless that accumulates),
// later ones add to it. With the piece that begins at 0 experts without any row get zero.
void GroupedWeightGradient(const ExpertRows& rows, const at::Tensor& grad, const at::Tensor& x,
                           const WeightGradient& destination);

}  // namespace switchyard::trainer::ops
