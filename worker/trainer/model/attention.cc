#include "worker/trainer/model/attention.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/record_function.h>

#include "absl/strings/str_cat.h"
#include "worker/trainer/ops/device_products.h"
#include "worker/trainer/ops/rms_norm.h"

namespace switchyard::trainer {

Attention::Attention(const ModelShape& shape, const ParameterRegistry& registry,
                     const GradientStore& gradients, int layer)
    : shape_{shape.num_heads, shape.num_kv_heads, shape.head_dim}, eps_(shape.rms_norm_eps) {
  const std::string prefix = absl::StrCat("model.layers.", layer, ".");
  const int input_norm = registry.Find(prefix + "input_layernorm.weight");
  const int query_norm = registry.Find(prefix + "self_attn.q_norm.weight");
  const int key_norm = registry.Find(prefix + "self_attn.k_norm.weight");
  const int q_proj = registry.Find(prefix + "self_attn.q_proj.weight");
  const int o_proj = registry.Find(prefix + "self_attn.o_proj.weight");
  input_norm_ = registry.Value(input_norm);
  query_norm_ = registry.Value(query_norm);
  key_norm_ = registry.Value(key_norm);
  qkv_proj_ = FusedValue(registry, q_proj, 3);
  o_proj_ = registry.Value(o_proj);
  grad_input_norm_ = gradients.Destination(input_norm);
  grad_query_norm_ = gradients.Destination(query_norm);
  grad_key_norm_ = gradients.Destination(key_norm);
  grad_qkv_proj_ = gradients.Destination(q_proj, 3);
  grad_o_proj_ = gradients.Destination(o_proj);
  if (!shape.attention_bias) return;
  const int q_bias = registry.Find(prefix + "self_attn.q_proj.bias");
  const int o_bias = registry.Find(prefix + "self_attn.o_proj.bias");
  qkv_bias_ = FusedValue(registry, q_bias, 3);
  o_bias_ = registry.Value(o_bias);
  grad_qkv_bias_ = gradients.Destination(q_bias, 3);
  grad_o_bias_ = gradients.Destination(o_bias);
}

ops::QkNormRope Attention::NormRope(const StepContext& context) const {
  return {query_norm_,         key_norm_,       eps_,        shape_.num_heads,
          shape_.num_kv_heads, shape_.head_dim, context.cos, context.sin};
}

void Attention::ProjectInput(at::Tensor normed, at::Tensor qkv) const {
  ops::RmsNorm(x_TD_, input_norm_, eps_, normed);
  if (qkv_bias_.defined()) {
    at::addmm_out(qkv, qkv_bias_, normed, qkv_proj_.t());
  } else {
    at::mm_out(qkv, normed, qkv_proj_.t());
  }
}

void Attention::Project(at::Tensor h_TD) const {
  if (h_TD.is_cpu()) {
    at::addmm_out(h_TD, x_TD_, out_, o_proj_.t());
  } else {
    ops::Products().AddProduct(x_TD_, out_, o_proj_, h_TD);
  }
  if (o_bias_.defined()) h_TD.add_(o_bias_);
}

void Attention::Forward(StepContext& context, Arena& slot, const at::Tensor& x_TD,
                        at::Tensor h_TD) {
  RECORD_USER_SCOPE("attention");
  const int64_t tokens = x_TD.size(0);
  const int64_t query = shape_.num_heads * shape_.head_dim;
  const int64_t key = shape_.num_kv_heads * shape_.head_dim;
  x_TD_ = x_TD;
  out_ = slot.Take({tokens, query}, context.dtype);
  log_sum_exp_ = slot.Take({tokens, shape_.num_heads}, at::kFloat);

  ArenaScope scope(context.workspace);
  const bool saved = context.saved.layer;
  at::Tensor qkv = context.Keep(saved, slot).Take({tokens, query + 2 * key}, context.dtype);
  qkv_ = saved ? qkv : at::Tensor();
  at::Tensor normed = context.workspace.Take(x_TD.sizes(), context.dtype);
  at::Tensor qk = context.workspace.Take({tokens, query + key}, context.dtype);
  ProjectInput(normed, qkv);
  ops::QkNormRopeForward(NormRope(context), qkv, qk);
  ops::CausalAttention(shape_, qk.narrow(1, 0, query), qk.narrow(1, query, key),
                       qkv.narrow(1, query + key, key), context.batch.document_offset, out_,
                       log_sum_exp_);
  Project(h_TD);
}

ops::QkvGradient Attention::PlaceGradient(StepContext& context, const at::Tensor& grad_qkv) const {
  const int64_t tokens = grad_qkv.size(0);
  const int64_t query = shape_.num_heads * shape_.head_dim;
  const int64_t key = shape_.num_kv_heads * shape_.head_dim;
  if (grad_qkv.is_cpu()) {
    return {grad_qkv.narrow(1, 0, query), grad_qkv.narrow(1, query, key),
            grad_qkv.narrow(1, query + key, key)};
  }
  // cuDNN wants rows of the queries' gradient as far apart as those of queries; those of keys and
  // values it keeps for every query head, in memory that grows with the distance of their rows.
  const auto take = [&](int64_t width) {
    return context.workspace.Take({tokens, width}, context.dtype);
  };
  const at::Tensor queries = take(query + key), keys = take(key), values = take(key);
  return {queries.narrow(1, 0, query), keys, values};
}

void Attention::Backward(StepContext& context, at::Tensor grad_TD) {
  RECORD_USER_SCOPE("attention backward");
  const int64_t tokens = grad_TD.size(0);
  const int64_t query = shape_.num_heads * shape_.head_dim;
  const int64_t key = shape_.num_kv_heads * shape_.head_dim;
  ArenaScope scope(context.workspace);
  at::Tensor normed = context.workspace.Take(grad_TD.sizes(), context.dtype);
  at::Tensor qk = context.workspace.Take({tokens, query + key}, context.dtype);
  at::Tensor grad_out = context.workspace.Take({tokens, query}, context.dtype);
  at::Tensor grad_qkv = context.workspace.Take({tokens, query + 2 * key}, context.dtype);
  at::Tensor grad_normed = context.workspace.Take(grad_TD.sizes(), context.dtype);
  const ops::QkvGradient grad = PlaceGradient(context, grad_qkv);

  at::Tensor qkv = qkv_;
  const bool saved = qkv.defined();
  if (!saved) {
    qkv = context.workspace.Take({tokens, query + 2 * key}, context.dtype);
    ProjectInput(normed, qkv);
  }
  ops::WriteMatrixGradient(grad_TD, out_, grad_o_proj_);
  if (o_bias_.defined()) ops::WriteBiasGradient(grad_TD, grad_o_bias_);
  at::mm_out(grad_out, grad_TD, o_proj_);

  const ops::QkNormRope norm_rope = NormRope(context);
  ops::QkNormRopeForward(norm_rope, qkv, qk);
  if (context.beside_attention) context.beside_attention();
  ops::CausalAttentionBackward(shape_, grad_out, qk.narrow(1, 0, query), qk.narrow(1, query, key),
                               qkv.narrow(1, query + key, key), out_, log_sum_exp_,
                               context.batch.document_offset, grad.query, grad.key, grad.value);
  ops::QkNormRopeBackward(norm_rope, qkv, grad, grad_qkv, grad_query_norm_, grad_key_norm_);

  if (saved) ops::RmsNorm(x_TD_, input_norm_, eps_, normed);
  ops::WriteMatrixGradient(grad_qkv, normed, grad_qkv_proj_);
  if (qkv_bias_.defined()) ops::WriteBiasGradient(grad_qkv, grad_qkv_bias_);
  at::mm_out(grad_normed, grad_qkv, qkv_proj_);
  ops::RmsNormBackward(grad_normed, x_TD_, input_norm_, eps_, grad_TD, grad_input_norm_);
}

}  // namespace switchyard::trainer
