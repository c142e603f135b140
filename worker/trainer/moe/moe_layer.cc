#include "worker/trainer/moe/moe_layer.h"

#include <array>

#include "absl/strings/str_cat.h"
#include "worker/trainer/ops/rms_norm.h"

namespace switchyard::trainer {

MoeLayer::MoeLayer(const ModelShape& shape, const ParameterRegistry& registry,
                   const GradientStore& gradients, int layer, int moe_layer)
    : eps_(shape.rms_norm_eps),
      router_(shape, registry, gradients, layer, moe_layer),
      experts_(shape, registry, gradients, layer) {
  const int norm =
      registry.Find(absl::StrCat("model.layers.", layer, ".post_attention_layernorm.weight"));
  norm_ = registry.Value(norm);
  grad_norm_ = gradients.Destination(norm);
}

void MoeLayer::Forward(StepContext& context, Arena& slot, const at::Tensor& h_TD, at::Tensor y_TD) {
  TokenDispatcher& dispatcher = *context.dispatcher;
  const int64_t tokens = h_TD.size(0);
  h_TD_ = h_TD;
  ArenaScope scope(context.workspace);
  Arena& rows_arena = context.saves_rows ? slot : context.workspace;
  const std::array<int64_t, 2> rows_size = {dispatcher.MaxRows(tokens), h_TD.size(1)};
  at::Tensor normed = rows_arena.Take(h_TD.sizes(), context.dtype);
  at::Tensor rows = rows_arena.Take(rows_size, context.dtype);
  at::Tensor out = context.saves_rows ? context.workspace.Take(rows_size, context.dtype) : rows;
  if (context.saves_rows) {
    normed_TD_ = normed;
    rows_RD_ = rows;
  }
  ops::RmsNorm(h_TD, norm_, eps_, normed);
  router_.Forward(context, slot, normed);
  {
    const PhaseScope phase(context.phases, StepPhase::kDispatch);
    routing_ = dispatcher.Dispatch(normed, router_.expert_TK(), router_.weight_TK(), slot, rows);
  }
  experts_.Forward(context, slot, routing_, rows, out);
  {
    const PhaseScope phase(context.phases, StepPhase::kCombine);
    dispatcher.Combine(out, routing_, y_TD);
  }
  y_TD.add_(h_TD);
}

void MoeLayer::Backward(StepContext& context, at::Tensor grad_TD) {
  TokenDispatcher& dispatcher = *context.dispatcher;
  const int64_t tokens = grad_TD.size(0), width = grad_TD.size(1);
  const int64_t max_rows = dispatcher.MaxRows(tokens);
  ArenaScope scope(context.workspace);
  const bool saved = context.saves_rows;
  at::Tensor normed = saved ? normed_TD_ : context.workspace.Take(grad_TD.sizes(), context.dtype);
  at::Tensor grad_normed = context.workspace.Take(grad_TD.sizes(), context.dtype);
  at::Tensor rows = saved ? rows_RD_ : context.workspace.Take({max_rows, width}, context.dtype);
  at::Tensor grad_rows = context.workspace.Take({max_rows, width}, context.dtype);
  at::Tensor grad_weight_R = context.workspace.Take({max_rows}, at::kFloat);
  at::Tensor grad_weight_TK = context.workspace.Take(router_.weight_TK().sizes(), at::kFloat);

  if (!saved) ops::RmsNorm(h_TD_, norm_, eps_, normed);
  {
    const PhaseScope phase(context.phases, StepPhase::kDispatch);
    if (!saved) dispatcher.Redispatch(normed, routing_, rows);
    dispatcher.DispatchGradient(grad_TD, routing_, grad_rows);
  }
  experts_.Backward(context, routing_, rows, grad_rows, grad_weight_R);
  {
    const PhaseScope phase(context.phases, StepPhase::kCombine);
    dispatcher.CombineGradient(grad_rows, grad_weight_R, routing_, grad_normed, grad_weight_TK);
  }
  router_.Backward(context, normed, grad_weight_TK, grad_normed);
  ops::RmsNormBackward(grad_normed, h_TD_, norm_, eps_, grad_TD, grad_norm_);
}

}  // namespace switchyard::trainer
