// Chooses experts and their weights for every token.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/model/model_shape.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/model/step_context.h"
#include "worker/trainer/ops/router.h"

namespace switchyard::trainer {

class Router {
 public:
  // `moe_layer` counts MoE layers only.
  Router(const ModelShape& shape, const ParameterRegistry& registry, const GradientStore& gradients,
         int layer, int moe_layer);

  // Routes x_TD and adds to the load balance. Logits and choices are saved in `slot`.
  void Forward(StepContext& context, Arena& slot, const at::Tensor& x_TD);
  // grad_x_TD += the gradient through weights and load balance. Writes the gate's gradient.
  void Backward(StepContext& context, const at::Tensor& x_TD, const at::Tensor& grad_weight_TK,
                at::Tensor grad_x_TD);

  const at::Tensor& expert_TK() const { return expert_TK_; }  // int64 (CUDA: int32), -1 for padding
  const at::Tensor& weight_TK() const { return weight_TK_; }  // float32

 private:
  ops::RouterRule rule_;
  int moe_layer_;
  at::Tensor gate_;  // [E, D]
  ops::WeightGradient grad_gate_;
  at::Tensor logits_TE_, expert_TK_, weight_TK_;  // saved
};

}  // namespace switchyard::trainer
