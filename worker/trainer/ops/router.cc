#include "worker/trainer/ops/router.h"

#include <ATen/ops/bincount.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/xlogy.h>
#include <ATen/ops/zeros_like.h>

#include "worker/trainer/ops/device_ops.h"

namespace switchyard::trainer::ops {

void RouteTokens(const RouterRule& rule, const at::Tensor& logits_TE, const at::Tensor& valid_T,
                 at::Tensor expert_TK, at::Tensor weight_TK, const RouterStatistics& statistics) {
  if (!logits_TE.is_cpu()) {
    Device().RouteTokens(rule, logits_TE, valid_T, expert_TK, weight_TK, statistics);
    return;
  }
  const at::Tensor probability_TE = at::softmax(logits_TE, 1, at::kFloat);
  at::topk_out(weight_TK, expert_TK, probability_TE, rule.top_k, 1);
  if (rule.renormalize) weight_TK.div_(weight_TK.sum(1, /*keepdim=*/true));
  const at::Tensor padding = valid_T.logical_not().unsqueeze(1);
  expert_TK.masked_fill_(padding, -1);
  weight_TK.masked_fill_(padding, 0);

  // Expert -1 of padding is counted in front and dropped.
  const int64_t experts = logits_TE.size(1);
  const at::Tensor count = at::bincount(expert_TK.flatten().add(1), {}, experts + 1);
  statistics.count_E.copy_(count.narrow(0, 1, experts));
  const at::Tensor valid = valid_T.to(at::kFloat);
  statistics.probability_E.copy_(valid.unsqueeze(0).mm(probability_TE).squeeze(0));
  statistics.entropy.copy_(at::xlogy(probability_TE, probability_TE).sum(1).dot(valid).neg());
}

void RouteTokensBackward(const RouterRule& rule, const at::Tensor& grad_weight_TK,
                         const at::Tensor& grad_probability_E, const at::Tensor& logits_TE,
                         const at::Tensor& expert_TK, const at::Tensor& valid_T,
                         at::Tensor grad_logits_TE) {
  if (!logits_TE.is_cpu()) {
    Device().RouteTokensBackward(rule, grad_weight_TK, grad_probability_E, logits_TE, expert_TK,
                                 valid_T, grad_logits_TE);
    return;
  }
  const at::Tensor probability_TE = at::softmax(logits_TE, 1, at::kFloat);
  const at::Tensor expert = expert_TK.clamp_min(0);
  at::Tensor grad_chosen = grad_weight_TK;
  if (rule.renormalize) {
    // w = p / sum p: d p = (d w - sum d w w) / sum p
    const at::Tensor chosen = probability_TE.gather(1, expert);
    const at::Tensor sum = chosen.sum(1, /*keepdim=*/true);
    const at::Tensor mean = grad_weight_TK.mul(chosen).sum(1, /*keepdim=*/true).div_(sum);
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
