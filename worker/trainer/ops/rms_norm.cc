#include "worker/trainer/ops/rms_norm.h"

#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/ops/row_blocks.h"

namespace switchyard::trainer::ops {
namespace {

// 1 / sqrt(mean(x^2) + eps), [rows, 1].
at::Tensor InverseRms(const at::Tensor& x_float, double eps) {
  return x_float.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
}

}  // namespace

void RmsNorm(const at::Tensor& x_TD, const at::Tensor& weight, double eps, at::Tensor out_TD) {
  if (!x_TD.is_cpu()) return Device().RmsNorm(x_TD, weight, eps, out_TD);
  ForRowBlocks(x_TD.device(), x_TD.size(0), x_TD.size(1), [&](int64_t, int64_t begin, int64_t end) {
    const at::Tensor x = x_TD.slice(0, begin, end);
    const at::Tensor x_float = x.to(at::kFloat);
    const at::Tensor normed = x_float.mul(InverseRms(x_float, eps)).to(x.scalar_type());
    at::Tensor out = out_TD.slice(0, begin, end);
    at::mul_out(out, normed, weight);
  });
}

void RmsNormBackward(const at::Tensor& grad_out_TD, const at::Tensor& x_TD,
                     const at::Tensor& weight, double eps, at::Tensor grad_x_TD,
                     const WeightGradient& grad_weight) {
  if (!x_TD.is_cpu()) {
    return Device().RmsNormBackward(grad_out_TD, x_TD, weight, eps, grad_x_TD, grad_weight);
  }
  const int64_t rows = x_TD.size(0), width = x_TD.size(1);
  const int64_t blocks = NumRowBlocks(rows, width);
  const at::Tensor partial = at::zeros({blocks, width}, x_TD.options().dtype(at::kFloat));
  const at::Tensor weight_float = weight.to(at::kFloat);
  ForRowBlocks(x_TD.device(), rows, width, [&](int64_t block, int64_t begin, int64_t end) {
    const at::Tensor x = x_TD.slice(0, begin, end).to(at::kFloat);
    const at::Tensor grad_out = grad_out_TD.slice(0, begin, end).to(at::kFloat);
    const at::Tensor inverse = InverseRms(x, eps);
    const at::Tensor normed = x.mul(inverse);
    at::Tensor by_weight = partial.select(0, block);
    at::sum_out(by_weight, grad_out.mul(normed), 0);
    const at::Tensor grad_normed = grad_out.mul(weight_float);
    const at::Tensor mean = grad_normed.mul(normed).mean(-1, /*keepdim=*/true);
    grad_x_TD.slice(0, begin, end).add_(grad_normed.addcmul(normed, mean, -1).mul_(inverse));
  });
  WriteGradient(partial.sum(0), grad_weight);
}

}  // namespace switchyard::trainer::ops
