// The mixture of experts with its norm and residual: y = h + combine(experts(dispatch(norm(h)))).
//
// Saves h, the router's logits and choices, and gate/up of the rows that came here. The rows
// themselves are saved when StepContext::saves_rows, else brought once more in the backward.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/model/model_shape.h"
#include "worker/trainer/model/feed_forward.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/moe/expert_bank.h"
#include "worker/trainer/moe/router.h"

namespace switchyard::trainer {

class MoeLayer final : public FeedForward {
 public:
  // `moe_layer` counts MoE layers only.
  MoeLayer(const ModelShape& shape, const ParameterRegistry& registry,
           const GradientStore& gradients, int layer, int moe_layer);

  void Forward(StepContext& context, Arena& slot, const at::Tensor& h_TD, at::Tensor y_TD) override;
  void Backward(StepContext& context, at::Tensor grad_TD) override;

 private:
  double eps_;
  at::Tensor norm_;
  ops::WeightGradient grad_norm_;
  Router router_;
  ExpertBank experts_;
  at::Tensor h_TD_;  // saved, as the routing is
  Routing routing_;
  at::Tensor normed_TD_, rows_RD_;  // saved when StepContext::saves_rows
};

}  // namespace switchyard::trainer
