// Cross-entropy of rows of logits, whose place its gradient takes.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::trainer::ops {

// loss_N (float32): -log softmax(logits_NV)[target]. logits_NV becomes the gradient of scale * sum
// of loss_N. target_N: int64 in [0, V); on CUDA a negative one has loss 0 and gradient 0.
void CrossEntropyWithGradient(at::Tensor logits_NV, const at::Tensor& target_N, double scale,
                              at::Tensor loss_N);
// The same without gradient. On CUDA logits_NV is overwritten.
void CrossEntropy(const at::Tensor& logits_NV, const at::Tensor& target_N, at::Tensor loss_N);

}  // namespace switchyard::trainer::ops
