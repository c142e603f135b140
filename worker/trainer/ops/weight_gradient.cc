#include "worker/trainer/ops/weight_gradient.h"

#include <ATen/ops/mm.h>

namespace switchyard::trainer::ops {

WeightGradient WeightGradient::Select(int64_t index) const {
  return {value.select(0, index), accumulate, scratch};
}

void WriteMatrixGradient(const at::Tensor& grad_TN, const at::Tensor& x_TK,
                         const WeightGradient& destination) {
  at::Tensor value = destination.value;
  if (!destination.accumulate) {
    at::mm_out(value, grad_TN.t(), x_TK);
  } else if (value.scalar_type() == grad_TN.scalar_type()) {
    value.addmm_(grad_TN.t(), x_TK);
  } else {
    at::Tensor product = destination.scratch.narrow(0, 0, value.numel()).view(value.sizes());
    at::mm_out(product, grad_TN.t(), x_TK);
    value.add_(product);
  }
}

void WriteGradient(const at::Tensor& gradient, const WeightGradient& destination) {
  at::Tensor value = destination.value;
  if (destination.accumulate) {
    value.add_(gradient);
  } else {
    value.copy_(gradient);
  }
}

}  // namespace switchyard::trainer::ops
