// Final norm, head and cross-entropy over the rows that have a target, by chunks of logits.
//
// Rows without a target have no loss and no gradient, so on CPU no logits are computed for them. On
// CUDA, where asking for their number would stop the step, all rows are taken.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/model/model_shape.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/model/step_context.h"

namespace switchyard::trainer {

class OutputHead {
 public:
  // A chunk is at most `chunk_rows` rows.
  OutputHead(const ModelShape& shape, const ParameterRegistry& registry,
             const GradientStore& gradients, int64_t chunk_rows);

  // Summed cross-entropy, float64 [1], of x_TD, the last layer's output. Writes grad_TD, the
  // gradient of scale times it by x_TD, and the parameters' gradients (a tied embedding's as well).
  at::Tensor ForwardBackward(StepContext& context, const at::Tensor& x_TD, double scale,
                             at::Tensor grad_TD);
  // Summed cross-entropy only, float64 [1].
  at::Tensor Forward(StepContext& context, const at::Tensor& x_TD);
  // Logits of all rows, [T, V], newly allocated.
  at::Tensor Logits(StepContext& context, const at::Tensor& x_TD);

 private:
  // The rows of x_TD that have a target, and these targets; on CUDA all rows.
  struct Rows {
    at::Tensor index;  // undefined for all
    at::Tensor x, target;
    int64_t count() const { return x.size(0); }
  };
  static Rows SelectRows(StepContext& context, const at::Tensor& x_TD);

  double eps_;
  int64_t chunk_rows_;
  at::Tensor norm_, head_;  // head [V, D]
  ops::WeightGradient grad_norm_, grad_head_;
};

}  // namespace switchyard::trainer
