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
  probability_TE_ = slot.Take({tokens, experts}, at::kFloat);
  expert_TK_ = slot.Take({tokens, rule_.top_k}, at::kLong);
  weight_TK_ = slot.Take({tokens, rule_.top_k}, at::kFloat);
  ArenaScope scope(context.workspace);
  at::Tensor logits = context.workspace.Take({tokens, experts}, context.dtype);
  at::mm_out(logits, x_TD, gate_.t());
  ops::RouteTokens(rule_, logits, context.batch.valid_T, probability_TE_, expert_TK_, weight_TK_);
  context.balance.Add(moe_layer_, probability_TE_, expert_TK_, context.batch.valid_T);
}

void Router::Backward(StepContext& context, const at::Tensor& x_TD,
                      const at::Tensor& grad_weight_TK, at::Tensor grad_x_TD) {
  ArenaScope scope(context.workspace);
  at::Tensor grad_logits = context.workspace.Take(probability_TE_.sizes(), context.dtype);
  ops::RouteTokensBackward(rule_, grad_weight_TK, context.balance.grad_probability_E(),
                           probability_TE_, expert_TK_, weight_TK_, context.batch.valid_T,
                           grad_logits);
  ops::WriteMatrixGradient(grad_logits, x_TD, grad_gate_);
  grad_x_TD.addmm_(grad_logits, gate_);
}

}  // namespace switchyard::trainer
