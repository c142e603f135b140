#include "worker/trainer/moe/moe_layer.h"

#include <ATen/record_function.h>

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
  ArenaScope scope(context.workspace);
  const SavedParts& saved = context.saved;
  Arena& rows_arena = context.Keep(saved.rows, slot);
  const std::array<int64_t, 2> rows_size = {dispatcher.MaxRows(tokens), h_TD.size(1)};
  at::Tensor normed = rows_arena.Take(h_TD.sizes(), context.dtype);
  at::Tensor rows = rows_arena.Take(rows_size, context.dtype);
  at::Tensor out = saved.rows ? context.workspace.Take(rows_size, context.dtype) : rows;
  if (saved.rows) {
    normed_TD_ = normed;
    rows_RD_ = rows;
  }
  ops::RmsNorm(h_TD, norm_, eps_, normed);
  router_.Forward(context, slot, normed);
  const Routing routing = Dispatch(context, context.Keep(saved.layer, slot), normed, rows);
  routing_ = saved.layer ? routing : Routing();
  {
    RECORD_USER_SCOPE("experts");
    experts_.Forward(context, slot, routing, rows, out);
  }
  const PhaseScope phase(context.phases, StepPhase::kCombine);
  dispatcher.Combine(out, routing, h_TD, y_TD);
}

Routing MoeLayer::Dispatch(StepContext& context, Arena& arena, const at::Tensor& normed_TD,
                           at::Tensor rows_RD) const {
  const PhaseScope phase(context.phases, StepPhase::kDispatch);
  return context.dispatcher->Dispatch(normed_TD, router_.expert_TK(), router_.weight_TK(), arena,
                                      rows_RD);
}

void MoeLayer::Backward(StepContext& context, const at::Tensor& h_TD, at::Tensor grad_TD) {
  TokenDispatcher& dispatcher = *context.dispatcher;
  const int64_t tokens = grad_TD.size(0), width = grad_TD.size(1);
  const int64_t max_rows = dispatcher.MaxRows(tokens);
  ArenaScope scope(context.workspace);
  const bool saved = context.saved.rows;
  at::Tensor normed = saved ? normed_TD_ : context.workspace.Take(grad_TD.sizes(), context.dtype);
  at::Tensor grad_normed = context.workspace.Take(grad_TD.sizes(), context.dtype);
  at::Tensor rows = saved ? rows_RD_ : context.workspace.Take({max_rows, width}, context.dtype);
  at::Tensor grad_rows = context.workspace.Take({max_rows, width}, context.dtype);
  at::Tensor grad_weight_R = context.workspace.Take({max_rows}, at::kFloat);
  at::Tensor grad_weight_TK = context.workspace.Take(router_.weight_TK().sizes(), at::kFloat);

  if (!saved) ops::RmsNorm(h_TD, norm_, eps_, normed);
  Routing routing = routing_;
  if (!context.saved.layer) routing = Dispatch(context, context.workspace, normed, rows);
  {
    const PhaseScope phase(context.phases, StepPhase::kDispatch);
    if (context.saved.layer && !saved) dispatcher.Redispatch(normed, routing, rows);
    dispatcher.DispatchGradient(grad_TD, routing, grad_rows);
  }
  {
    RECORD_USER_SCOPE("experts backward");
    experts_.Backward(context, routing, rows, grad_rows, grad_weight_R);
  }
  {
    const PhaseScope phase(context.phases, StepPhase::kCombine);
    dispatcher.CombineGradient(grad_rows, grad_weight_R, routing, grad_normed, grad_weight_TK);
  }
  router_.Backward(context, normed, grad_weight_TK, grad_normed);
  ops::RmsNormBackward(grad_normed, h_TD, norm_, eps_, grad_TD, grad_norm_);
}

}  // namespace switchyard::trainer
