// The dense feed-forward network with its norm and residual: y = h + down(silu(gate) * up) of
// norm(h).
//
// Saves gate/up unless it is to be recomputed.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/model/model_shape.h"
#include "worker/trainer/model/feed_forward.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/parameter_registry.h"

namespace switchyard::trainer {

class DenseMlp final : public FeedForward {
 public:
  DenseMlp(const ModelShape& shape, const ParameterRegistry& registry,
           const GradientStore& gradients, int layer);

  void Forward(StepContext& context, Arena& slot, const at::Tensor& h_TD, at::Tensor y_TD) override;
  void Backward(StepContext& context, const at::Tensor& h_TD, at::Tensor grad_TD) override;

 private:
  double eps_;
  int64_t width_;
  at::Tensor norm_, gate_up_proj_, down_proj_;
  ops::WeightGradient grad_norm_, grad_gate_up_proj_, grad_down_proj_;
  at::Tensor gate_up_;  // saved, or undefined
};

}  // namespace switchyard::trainer
