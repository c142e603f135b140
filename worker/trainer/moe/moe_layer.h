// The mixture of experts with its norm and residual: y = h + combine(experts(dispatch(norm(h)))).
//
// Saves the router's logits and choices, and as StepContext::saved says: the routing, else tokens
// are dispatched again in the backward; gate/up of the rows that came here, else it is computed
// again; the rows themselves, else they are brought once more.
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
  void Backward(StepContext& context, const at::Tensor& h_TD, at::Tensor grad_TD) override;

 private:
  // Writes rows_RD; takes what must stay until the backward from `arena`.
  Routing Dispatch(StepContext& context, Arena& arena, const at::Tensor& normed_TD,
                   at::Tensor rows_RD) const;

  double eps_;
  at::Tensor norm_;
  ops::WeightGradient grad_norm_;
  Router router_;
  ExpertBank experts_;
  Routing routing_;                 // with StepContext::saved.layer
  at::Tensor normed_TD_, rows_RD_;  // with StepContext::saved.rows
};

}  // namespace switchyard::trainer
