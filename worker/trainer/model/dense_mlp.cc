#include "worker/trainer/model/dense_mlp.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "absl/strings/str_cat.h"
#include "worker/trainer/ops/rms_norm.h"
#include "worker/trainer/ops/swiglu.h"

namespace switchyard::trainer {

DenseMlp::DenseMlp(const ModelShape& shape, const ParameterRegistry& registry,
                   const GradientStore& gradients, int layer)
    : eps_(shape.rms_norm_eps), width_(shape.intermediate_size) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const int norm = registry.Find(prefix + "post_attention_layernorm.weight");
  const int gate = registry.Find(prefix + "mlp.gate_proj.weight");
  const int down = registry.Find(prefix + "mlp.down_proj.weight");
  norm_ = registry.Value(norm);
  gate_up_proj_ = FusedValue(registry, gate, 2);
  down_proj_ = registry.Value(down);
  grad_norm_ = gradients.Destination(norm);
  grad_gate_up_proj_ = gradients.Destination(gate, 2);
  grad_down_proj_ = gradients.Destination(down);
}

void DenseMlp::Forward(StepContext& context, Arena& slot, const at::Tensor& h_TD, at::Tensor y_TD) {
  const int64_t tokens = h_TD.size(0);
  ArenaScope scope(context.workspace);
  const bool saved = context.saved.gate_up;
  at::Tensor gate_up = context.Keep(saved, slot).Take({tokens, 2 * width_}, context.dtype);
  gate_up_ = saved ? gate_up : at::Tensor();
  at::Tensor normed = context.workspace.Take(h_TD.sizes(), context.dtype);
  at::Tensor hidden = context.workspace.Take({tokens, width_}, context.dtype);
  ops::RmsNorm(h_TD, norm_, eps_, normed);
  at::mm_out(gate_up, normed, gate_up_proj_.t());
  ops::SwiGlu(gate_up, {}, hidden);
  at::addmm_out(y_TD, h_TD, hidden, down_proj_.t());
}

void DenseMlp::Backward(StepContext& context, const at::Tensor& h_TD, at::Tensor grad_TD) {
  const int64_t tokens = grad_TD.size(0);
  ArenaScope scope(context.workspace);
  at::Tensor normed = context.workspace.Take(grad_TD.sizes(), context.dtype);
  at::Tensor grad_normed = context.workspace.Take(grad_TD.sizes(), context.dtype);
  at::Tensor hidden = context.workspace.Take({tokens, width_}, context.dtype);
  at::Tensor grad_hidden = context.workspace.Take({tokens, width_}, context.dtype);
  ops::RmsNorm(h_TD, norm_, eps_, normed);
  at::Tensor gate_up = gate_up_;
  if (!gate_up.defined()) {
    gate_up = context.workspace.Take({tokens, 2 * width_}, context.dtype);
    at::mm_out(gate_up, normed, gate_up_proj_.t());
  }
  at::mm_out(grad_hidden, grad_TD, down_proj_);
  ops::SwiGluBackward(grad_hidden, {}, gate_up, hidden, {});
  ops::WriteMatrixGradient(grad_TD, hidden, grad_down_proj_);
  ops::WriteMatrixGradient(gate_up, normed, grad_gate_up_proj_);
  at::mm_out(grad_normed, gate_up, gate_up_proj_);
  ops::RmsNormBackward(grad_normed, h_TD, norm_, eps_, grad_TD, grad_norm_);
}

}  // namespace switchyard::trainer
