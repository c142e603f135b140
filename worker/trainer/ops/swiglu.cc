#include "worker/trainer/ops/swiglu.h"

#include <ATen/ops/mul.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sum.h>

#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/ops/row_blocks.h"

namespace switchyard::trainer::ops {

void SwiGlu(const at::Tensor& gate_up, const at::Tensor& weight_R, at::Tensor out,
            const at::Tensor& num_rows) {
  if (!out.is_cpu()) return Device().SwiGlu(gate_up, weight_R, num_rows, out);
  const int64_t width = out.size(1);
  ForRowBlocks(out.device(), out.size(0), width, [&](int64_t, int64_t begin, int64_t end) {
    const at::Tensor rows = gate_up.slice(0, begin, end);
    at::Tensor h = at::silu(rows.slice(1, 0, width).to(at::kFloat)).mul_(rows.slice(1, width));
    if (weight_R.defined()) h.mul_(weight_R.slice(0, begin, end).unsqueeze(1));
    out.slice(0, begin, end).copy_(h);
  });
}

void SwiGluBackward(const at::Tensor& grad_out, const at::Tensor& weight_R, at::Tensor gate_up,
                    at::Tensor out, at::Tensor grad_weight_R, const at::Tensor& num_rows) {
  if (!out.is_cpu()) {
    return Device().SwiGluBackward(grad_out, weight_R, num_rows, gate_up, out, grad_weight_R);
  }
  const int64_t width = out.size(1);
  ForRowBlocks(out.device(), out.size(0), width, [&](int64_t, int64_t begin, int64_t end) {
    const at::Tensor rows = gate_up.slice(0, begin, end);
    const at::Tensor gate = rows.slice(1, 0, width), up = rows.slice(1, width);
    const at::Tensor g = gate.to(at::kFloat), u = up.to(at::kFloat);
    const at::Tensor sigmoid = at::sigmoid(g);
    const at::Tensor silu = g.mul(sigmoid);
    // d silu / d gate = sigmoid (1 + gate (1 - sigmoid)) = sigmoid + silu - silu sigmoid
    const at::Tensor slope = sigmoid.add(silu).addcmul_(silu, sigmoid, -1);
    at::Tensor grad = grad_out.slice(0, begin, end).to(at::kFloat);
    at::Tensor h = silu.mul(u);
    if (weight_R.defined()) {
      const at::Tensor weight = weight_R.slice(0, begin, end).unsqueeze(1);
      at::Tensor by_weight = grad_weight_R.slice(0, begin, end);
      at::sum_out(by_weight, grad.mul(h), 1);
      grad = grad.mul(weight);
      h.mul_(weight);
    }
    out.slice(0, begin, end).copy_(h);
    gate.copy_(slope.mul_(grad).mul_(u));
    up.copy_(silu.mul(grad));
  });
}

}  // namespace switchyard::trainer::ops
