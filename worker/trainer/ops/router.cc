#include "worker/trainer/ops/router.h"

#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/zeros_like.h>

namespace switchyard::trainer::ops {

void RouteTokens(const RouterRule& rule, const at::Tensor& logits_TE, const at::Tensor& valid_T,
                 at::Tensor probability_TE, at::Tensor expert_TK, at::Tensor weight_TK) {
  probability_TE.copy_(at::softmax(logits_TE, 1, at::kFloat));
  at::topk_out(weight_TK, expert_TK, probability_TE, rule.top_k, 1);
  if (rule.renormalize) weight_TK.div_(weight_TK.sum(1, /*keepdim=*/true));
  const at::Tensor padding = valid_T.logical_not().unsqueeze(1);
  expert_TK.masked_fill_(padding, -1);
  weight_TK.masked_fill_(padding, 0);
}

void RouteTokensBackward(const RouterRule& rule, const at::Tensor& grad_weight_TK,
                         const at::Tensor& grad_probability_E, const at::Tensor& probability_TE,
                         const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                         const at::Tensor& valid_T, at::Tensor grad_logits_TE) {
  const at::Tensor expert = expert_TK.clamp_min(0);
  at::Tensor grad_chosen = grad_weight_TK;
  if (rule.renormalize) {
    // w = p / sum p: d p = (d w - sum d w w) / sum p
    const at::Tensor mean = grad_weight_TK.mul(weight_TK).sum(1, /*keepdim=*/true);
    const at::Tensor sum = probability_TE.gather(1, expert).sum(1, /*keepdim=*/true);
    grad_chosen = grad_weight_TK.sub(mean).div_(sum);
  }
  at::Tensor grad = grad_probability_E.defined()
                        ? grad_probability_E.expand_as(probability_TE).clone()
                        : at::zeros_like(probability_TE);
  grad.scatter_add_(1, expert, grad_chosen);
  const at::Tensor mean = grad.mul(probability_TE).sum(1, /*keepdim=*/true);
  grad.sub_(mean).mul_(probability_TE).masked_fill_(valid_T.logical_not().unsqueeze(1), 0);
  grad_logits_TE.copy_(grad);
}

}  // namespace switchyard::trainer::ops
