// Grouped-query attention with per-head norms and rotary positions, around it norm and residual:
// h = x + o_proj(attention(norm(x))); the projections may have biases.
//
// Saves x, the attention output and its log-sum-exp, and qkv before norm and rope unless that is to
// be recomputed; the rest is recomputed.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/model/model_shape.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/model/step_context.h"
#include "worker/trainer/ops/attention.h"
#include "worker/trainer/ops/qk_norm_rope.h"

namespace switchyard::trainer {

class Attention {
 public:
  Attention(const ModelShape& shape, const ParameterRegistry& registry,
            const GradientStore& gradients, int layer);

  // Writes h_TD. x_TD lies in `slot` and stays until Backward.
  void Forward(StepContext& context, Arena& slot, const at::Tensor& x_TD, at::Tensor h_TD);
  // h_TD once more, between Forward and Backward.
  void Project(at::Tensor h_TD) const;
  // grad_TD: gradient of h_TD, becomes the gradient of x_TD. Writes the parameters' gradients.
  void Backward(StepContext& context, at::Tensor grad_TD);

 private:
  ops::QkNormRope NormRope(const StepContext& context) const;
  // normed = norm(x), qkv = its projections.
  void ProjectInput(at::Tensor normed, at::Tensor qkv) const;
  // Where the gradient of attention's arguments goes: in grad_qkv, or to tensors of the workspace.
  ops::QkvGradient PlaceGradient(StepContext& context, const at::Tensor& grad_qkv) const;

  ops::AttentionShape shape_;
  double eps_;
  at::Tensor input_norm_, query_norm_, key_norm_, qkv_proj_, o_proj_;
  at::Tensor qkv_bias_, o_bias_;  // undefined when the projections have none
  ops::WeightGradient grad_input_norm_, grad_query_norm_, grad_key_norm_, grad_qkv_proj_,
      grad_o_proj_, grad_qkv_bias_, grad_o_bias_;
  at::Tensor x_TD_, out_, log_sum_exp_;  // saved
  at::Tensor qkv_;                       // saved, or undefined
};

}  // namespace switchyard::trainer
