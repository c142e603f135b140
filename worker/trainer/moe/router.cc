#include "worker/trainer/moe/router.h"

#include <ATen/ops/mm.h>

#include "absl/strings/str_cat.h"

namespace switchyard::trainer {

Router::Router(const ModelShape& shape, const ParameterRegistry& registry,
               const GradientStore& gradients, int layer, int moe_layer)
    : rule_{shape.experts_per_token, shape.norm_topk_prob}, moe_layer_(moe_layer) {
  const int gate = registry.Find(absl::StrCat("model.layers.", layer, ".mlp.gate.weight"));
  gate_ = registry.Value(gate);
  grad_gate_ = gradients.Destination(gate);
}

void Router::Forward(StepContext& context, Arena& slot, const at::Tensor& x_TD) {
  const int64_t tokens = x_TD.size(0), experts = gate_.size(0);
  logits_TE_ = slot.Take({tokens, experts}, context.dtype);
  expert_TK_ = slot.Take({tokens, rule_.top_k}, x_TD.is_cpu() ? at::kLong : at::kInt);
  weight_TK_ = slot.Take({tokens, rule_.top_k}, at::kFloat);
  at::mm_out(logits_TE_, x_TD, gate_.t());
  ops::RouteTokens(rule_, logits_TE_, context.batch.valid_T, expert_TK_, weight_TK_,
                   context.balance.Statistics(moe_layer_));
}

void Router::Backward(StepContext& context, const at::Tensor& x_TD,
                      const at::Tensor& grad_weight_TK, at::Tensor grad_x_TD) {
  const at::Tensor& grad_logits = logits_TE_;  // in place
  ops::RouteTokensBackward(rule_, grad_weight_TK, context.balance.grad_probability_E(), logits_TE_,
                           expert_TK_, context.batch.valid_T, grad_logits);
  ops::WriteMatrixGradient(grad_logits, x_TD, grad_gate_);
  grad_x_TD.addmm_(grad_logits, gate_);
}

}  // namespace switchyard::trainer
