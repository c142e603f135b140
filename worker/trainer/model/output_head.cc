#include "worker/trainer/model/output_head.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "worker/trainer/ops/cross_entropy.h"
#include "worker/trainer/ops/rms_norm.h"

namespace switchyard::trainer {

OutputHead::OutputHead(const ModelShape& shape, const ParameterRegistry& registry,
                       const GradientStore& gradients, int64_t chunk_rows)
    : eps_(shape.rms_norm_eps), chunk_rows_(chunk_rows) {
  const int norm = registry.Find("model.norm.weight");
  const int head =
      registry.Find(shape.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
  norm_ = registry.Value(norm);
  head_ = registry.Value(head);
  grad_norm_ = gradients.Destination(norm);
  grad_head_ = gradients.Destination(head);
}

OutputHead::Rows OutputHead::SelectRows(StepContext& context, const at::Tensor& x_TD) {
  if (!x_TD.is_cpu()) return {{}, x_TD, context.batch.target_T};
  const at::Tensor index = context.batch.target_T.ge(0).nonzero().squeeze(1);
  at::Tensor x = context.workspace.Take({index.numel(), x_TD.size(1)}, context.dtype);
  at::index_select_out(x, x_TD, 0, index);
  return {index, x, context.batch.target_T.index_select(0, index)};
}

at::Tensor OutputHead::ForwardBackward(StepContext& context, const at::Tensor& x_TD, double scale,
                                       at::Tensor grad_TD) {
  Arena& workspace = context.workspace;
  ArenaScope scope(workspace);
  grad_TD.zero_();
  const Rows selected = SelectRows(context, x_TD);
  const int64_t rows = selected.count(), width = x_TD.size(1);
  const at::Tensor loss = at::empty({rows}, x_TD.options().dtype(at::kFloat));
  if (rows == 0) {
    if (!grad_head_.accumulate) grad_head_.value.zero_();
    if (!grad_norm_.accumulate) grad_norm_.value.zero_();
    return loss.sum(0, /*keepdim=*/true, at::kDouble);
  }
  at::Tensor normed = workspace.Take({rows, width}, context.dtype);
  at::Tensor grad_normed = workspace.Take({rows, width}, context.dtype);
  ops::RmsNorm(selected.x, norm_, eps_, normed);

  // bfloat16 chunks add up in float32, with the final place as scratch.
  ops::WeightGradient grad_head = grad_head_;
  const bool sum_in_float =
      rows > chunk_rows_ && !grad_head.accumulate && context.dtype != at::kFloat;
  if (sum_in_float) {
    grad_head = {workspace.Take(head_.sizes(), at::kFloat).zero_(), true,
                 grad_head_.value.flatten()};
  }
  at::Tensor logits = workspace.Take({std::min(rows, chunk_rows_), head_.size(0)}, context.dtype);
  for (int64_t begin = 0; begin < rows; begin += chunk_rows_) {
    const int64_t count = std::min(chunk_rows_, rows - begin);
    at::Tensor chunk = logits.narrow(0, 0, count);
    at::Tensor grad_chunk = grad_normed.narrow(0, begin, count);
    const at::Tensor normed_chunk = normed.narrow(0, begin, count);
    at::mm_out(chunk, normed_chunk, head_.t());
    ops::CrossEntropyWithGradient(chunk, selected.target.narrow(0, begin, count), scale,
                                  loss.narrow(0, begin, count));
    ops::WriteMatrixGradient(chunk, normed_chunk, grad_head);
    grad_head.accumulate = true;
    at::mm_out(grad_chunk, chunk, head_);
  }
  if (sum_in_float) grad_head_.value.copy_(grad_head.value);

  if (selected.index.defined()) {
    at::Tensor grad_x = normed.zero_();
    ops::RmsNormBackward(grad_normed, selected.x, norm_, eps_, grad_x, grad_norm_);
    grad_TD.index_copy_(0, selected.index, grad_x);
  } else {
    ops::RmsNormBackward(grad_normed, selected.x, norm_, eps_, grad_TD, grad_norm_);
  }
  return loss.sum(0, /*keepdim=*/true, at::kDouble);
}

at::Tensor OutputHead::Forward(StepContext& context, const at::Tensor& x_TD) {
  Arena& workspace = context.workspace;
  ArenaScope scope(workspace);
  const Rows selected = SelectRows(context, x_TD);
  const int64_t rows = selected.count();
  at::Tensor normed = workspace.Take({rows, x_TD.size(1)}, context.dtype);
  ops::RmsNorm(selected.x, norm_, eps_, normed);
  const at::Tensor loss = at::empty({rows}, x_TD.options().dtype(at::kFloat));
  at::Tensor logits = workspace.Take({std::min(rows, chunk_rows_), head_.size(0)}, context.dtype);
  for (int64_t begin = 0; begin < rows; begin += chunk_rows_) {
    const int64_t count = std::min(chunk_rows_, rows - begin);
    at::Tensor chunk = logits.narrow(0, 0, count);
    at::mm_out(chunk, normed.narrow(0, begin, count), head_.t());
    ops::CrossEntropy(chunk, selected.target.narrow(0, begin, count), loss.narrow(0, begin, count));
  }
  return loss.sum(0, /*keepdim=*/true, at::kDouble);
}

at::Tensor OutputHead::Logits(StepContext& context, const at::Tensor& x_TD) {
  ArenaScope scope(context.workspace);
  at::Tensor normed = context.workspace.Take(x_TD.sizes(), context.dtype);
  ops::RmsNorm(x_TD, norm_, eps_, normed);
  return at::mm(normed, head_.t());
}

}  // namespace switchyard::trainer
