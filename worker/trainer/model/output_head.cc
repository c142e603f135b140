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

double OutputHead::ForwardBackward(StepContext& context, const at::Tensor& x_TD, double scale,
                                   at::Tensor grad_TD) {
  const at::Tensor row = context.batch.target_T.ge(0).nonzero().squeeze(1);
  const int64_t rows = row.numel(), width = x_TD.size(1);
  grad_TD.zero_();
  if (rows == 0) {
    if (!grad_head_.accumulate) grad_head_.value.zero_();
    if (!grad_norm_.accumulate) grad_norm_.value.zero_();
    return 0;
  }
  Arena& workspace = context.workspace;
  ArenaScope scope(workspace);
  at::Tensor x = workspace.Take({rows, width}, context.dtype);
  at::Tensor normed = workspace.Take({rows, width}, context.dtype);
  at::Tensor grad_normed = workspace.Take({rows, width}, context.dtype);
  at::index_select_out(x, x_TD, 0, row);
  ops::RmsNorm(x, norm_, eps_, normed);
  const at::Tensor target = context.batch.target_T.index_select(0, row);
  const at::Tensor loss = at::empty({rows}, target.options().dtype(at::kFloat));

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
    ops::CrossEntropyWithGradient(chunk, target.narrow(0, begin, count), scale,
                                  loss.narrow(0, begin, count));
    ops::WriteMatrixGradient(chunk, normed_chunk, grad_head);
    grad_head.accumulate = true;
    at::mm_out(grad_chunk, chunk, head_);
  }
  if (sum_in_float) grad_head_.value.copy_(grad_head.value);

  at::Tensor grad_x = normed.zero_();
  ops::RmsNormBackward(grad_normed, x, norm_, eps_, grad_x, grad_norm_);
  grad_TD.index_copy_(0, row, grad_x);
  return loss.sum(at::kDouble).item<double>();
}

double OutputHead::Forward(StepContext& context, const at::Tensor& x_TD) {
  const at::Tensor row = context.batch.target_T.ge(0).nonzero().squeeze(1);
  const int64_t rows = row.numel(), width = x_TD.size(1);
  Arena& workspace = context.workspace;
  ArenaScope scope(workspace);
  at::Tensor x = workspace.Take({rows, width}, context.dtype);
  at::Tensor normed = workspace.Take({rows, width}, context.dtype);
  at::index_select_out(x, x_TD, 0, row);
  ops::RmsNorm(x, norm_, eps_, normed);
  const at::Tensor target = context.batch.target_T.index_select(0, row);
  const at::Tensor loss = at::empty({rows}, target.options().dtype(at::kFloat));
  at::Tensor logits = workspace.Take({std::min(rows, chunk_rows_), head_.size(0)}, context.dtype);
  for (int64_t begin = 0; begin < rows; begin += chunk_rows_) {
    const int64_t count = std::min(chunk_rows_, rows - begin);
    at::Tensor chunk = logits.narrow(0, 0, count);
    at::mm_out(chunk, normed.narrow(0, begin, count), head_.t());
    ops::CrossEntropy(chunk, target.narrow(0, begin, count), loss.narrow(0, begin, count));
  }
  return loss.sum(at::kDouble).item<double>();
}

at::Tensor OutputHead::Logits(StepContext& context, const at::Tensor& x_TD) {
  ArenaScope scope(context.workspace);
  at::Tensor normed = context.workspace.Take(x_TD.sizes(), context.dtype);
  ops::RmsNorm(x_TD, norm_, eps_, normed);
  return at::mm(normed, head_.t());
}

}  // namespace switchyard::trainer
