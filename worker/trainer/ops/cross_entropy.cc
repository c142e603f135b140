#include "worker/trainer/ops/cross_entropy.h"

#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>

#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/ops/row_blocks.h"

namespace switchyard::trainer::ops {
namespace {

// Log-probabilities in float32 and, in loss, minus those of the targets.
at::Tensor LogProbabilities(const at::Tensor& logits, const at::Tensor& target, at::Tensor loss) {
  at::Tensor log_probability = at::log_softmax(logits, 1, at::kFloat);
  loss.copy_(log_probability.gather(1, target).squeeze(1).neg_());
  return log_probability;
}

}  // namespace

void CrossEntropyWithGradient(at::Tensor logits_NV, const at::Tensor& target_N, double scale,
                              at::Tensor loss_N) {
  if (!logits_NV.is_cpu()) {
    return Device().CrossEntropyWithGradient(logits_NV, target_N, scale, loss_N);
  }
  ForRowBlocks(
      logits_NV.device(), logits_NV.size(0), logits_NV.size(1),
      [&](int64_t, int64_t begin, int64_t end) {
        const at::Tensor logits = logits_NV.slice(0, begin, end);
        const at::Tensor target = target_N.slice(0, begin, end).unsqueeze(1);
        at::Tensor gradient = LogProbabilities(logits, target, loss_N.slice(0, begin, end)).exp_();
        gradient.scatter_add_(1, target, at::full(target.sizes(), -1.0, gradient.options()));
        logits.copy_(gradient.mul_(scale));
      });
}

void CrossEntropy(const at::Tensor& logits_NV, const at::Tensor& target_N, at::Tensor loss_N) {
  if (!logits_NV.is_cpu()) return Device().CrossEntropyWithGradient(logits_NV, target_N, 1, loss_N);
  ForRowBlocks(logits_NV.device(), logits_NV.size(0), logits_NV.size(1),
               [&](int64_t, int64_t begin, int64_t end) {
                 LogProbabilities(logits_NV.slice(0, begin, end),
                                  target_N.slice(0, begin, end).unsqueeze(1),
                                  loss_N.slice(0, begin, end));
               });
}

}  // namespace switchyard::trainer::ops
