#include "worker/trainer/ops/qk_norm_rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/ops/row_blocks.h"

namespace switchyard::trainer::ops {
namespace {

// float32 [H + G, C]: the weight of each head.
at::Tensor HeadWeights(const QkNormRope& op) {
  return at::cat({op.query_weight.to(at::kFloat).expand({op.num_heads, op.head_dim}),
                  op.key_weight.to(at::kFloat).expand({op.num_kv_heads, op.head_dim})});
}

at::Tensor InverseRms(const at::Tensor& x_float, double eps) {
  return x_float.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
}

// The query and key heads of rows begin .. end: [rows, H + G, C].
at::Tensor Heads(const QkNormRope& op, const at::Tensor& rows, int64_t begin, int64_t end) {
  const int64_t heads = op.num_heads + op.num_kv_heads;
  return rows.slice(0, begin, end)
      .slice(1, 0, heads * op.head_dim)
      .unflatten(1, {heads, op.head_dim});
}

}  // namespace

void RotaryTables(const at::Tensor& position_T, double theta, at::Tensor cos, at::Tensor sin) {
  const int64_t pairs = cos.size(1);
  // In float32, in the order in which Transformers computes it, so that the angles agree to the
  // bit.
  const at::Tensor exponent =
      at::arange(0, 2 * pairs, 2, cos.options()).div_(static_cast<double>(2 * pairs));
  const at::Tensor frequency = at::pow(theta, exponent).reciprocal_();
  const at::Tensor angle = at::outer(position_T.to(at::kFloat), frequency);
  at::cos_out(cos, angle);
  at::sin_out(sin, angle);
}

void QkNormRopeForward(const QkNormRope& op, const at::Tensor& qkv, at::Tensor qk) {
  if (!qkv.is_cpu()) return Device().QkNormRopeForward(op, qkv, qk);
  const at::Tensor weight = HeadWeights(op);
  const int64_t half = op.head_dim / 2;
  ForRowBlocks(qkv.device(), qkv.size(0), qk.size(1), [&](int64_t, int64_t begin, int64_t end) {
    const at::Tensor x = Heads(op, qkv, begin, end).to(at::kFloat);
    const at::Tensor y = x.mul(InverseRms(x, op.eps)).mul_(weight);
    const at::Tensor a = y.narrow(2, 0, half), b = y.narrow(2, half, half);
    const at::Tensor cos = op.cos.slice(0, begin, end).unsqueeze(1);
    const at::Tensor sin = op.sin.slice(0, begin, end).unsqueeze(1);
    const at::Tensor out = Heads(op, qk, begin, end);
    out.narrow(2, 0, half).copy_(a.mul(cos).sub_(b.mul(sin)));
    out.narrow(2, half, half).copy_(b.mul(cos).add_(a.mul(sin)));
  });
}

void QkNormRopeBackward(const QkNormRope& op, const at::Tensor& qkv, const QkvGradient& grad,
                        at::Tensor grad_qkv, const WeightGradient& grad_query_weight,
                        const WeightGradient& grad_key_weight) {
  if (!qkv.is_cpu()) {
    return Device().QkNormRopeBackward(op, qkv, grad, grad_qkv, grad_query_weight, grad_key_weight);
  }
  const at::Tensor weight = HeadWeights(op);
  const int64_t half = op.head_dim / 2;
  const int64_t heads = op.num_heads + op.num_kv_heads;
  const int64_t rows = qkv.size(0), width = heads * op.head_dim;
  const int64_t blocks = NumRowBlocks(rows, width);
  const at::Tensor partial =
      at::zeros({blocks, heads, op.head_dim}, qkv.options().dtype(at::kFloat));
  ForRowBlocks(qkv.device(), rows, width, [&](int64_t block, int64_t begin, int64_t end) {
    const at::Tensor grad_heads = Heads(op, grad_qkv, begin, end);
    const at::Tensor grad_float = grad_heads.to(at::kFloat);
    const at::Tensor p = grad_float.narrow(2, 0, half), q = grad_float.narrow(2, half, half);
    const at::Tensor cos = op.cos.slice(0, begin, end).unsqueeze(1);
    const at::Tensor sin = op.sin.slice(0, begin, end).unsqueeze(1);
    const at::Tensor turned = at::empty_like(grad_float, at::MemoryFormat::Contiguous);
    turned.narrow(2, 0, half).copy_(p.mul(cos).add_(q.mul(sin)));
    turned.narrow(2, half, half).copy_(q.mul(cos).sub_(p.mul(sin)));

    const at::Tensor x = Heads(op, qkv, begin, end).to(at::kFloat);
    const at::Tensor inverse = InverseRms(x, op.eps);
    const at::Tensor normed = x.mul(inverse);
    at::Tensor by_weight = partial.select(0, block);
    at::sum_out(by_weight, turned.mul(normed), 0);
    const at::Tensor grad_normed = turned.mul_(weight);
    const at::Tensor mean = grad_normed.mul(normed).mean(-1, /*keepdim=*/true);
    grad_heads.copy_(grad_normed.addcmul(normed, mean, -1).mul_(inverse));
  });
  const at::Tensor by_head = partial.sum(0);
  WriteGradient(by_head.narrow(0, 0, op.num_heads).sum(0), grad_query_weight);
  WriteGradient(by_head.narrow(0, op.num_heads, op.num_kv_heads).sum(0), grad_key_weight);
}

}  // namespace switchyard::trainer::ops
