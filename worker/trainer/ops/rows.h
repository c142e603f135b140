// Sums of chosen rows: the embedding's gradient and the local combine.
//
// Sums are taken in float32 in a fixed order, so they do not depend on threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/trainer/ops/weight_gradient.h"

namespace switchyard::trainer::ops {

// out_TD[t] = residual_TD[t] + sum over k of rows_RD[row_TK[t, k]]; entries of -1 add nothing, nor
// does an undefined residual. row_TK: int64. CPU only.
void SumChosenRows(const at::Tensor& rows_RD, const at::Tensor& row_TK,
                   const at::Tensor& residual_TD, at::Tensor out_TD);

// destination [V, D] += the sum of grad_TD over the tokens with id_T = v; the row `skipped_id` gets
// nothing.
void AddEmbeddingGradient(const at::Tensor& grad_TD, const at::Tensor& id_T, int64_t skipped_id,
                          const WeightGradient& destination);

}  // namespace switchyard::trainer::ops
