#include "worker/trainer/ops/weight_gradient.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>

#include "worker/trainer/ops/row_blocks.h"

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
  } else if (!value.is_cpu()) {
    at::addmm_out(value, value, grad_TN.t(), x_TK, value.scalar_type());
  } else {
    at::Tensor product = destination.scratch.narrow(0, 0, value.numel()).view(value.sizes());
    at::mm_out(product, grad_TN.t(), x_TK);
    value.add_(product);
  }
}

void WriteBiasGradient(const at::Tensor& grad_TN, const WeightGradient& destination) {
  const int64_t rows = grad_TN.size(0), width = grad_TN.size(1);
  const int64_t blocks = grad_TN.device().is_cpu() ? NumRowBlocks(rows, width) : 1;
  const at::Tensor partial = at::zeros({blocks, width}, grad_TN.options().dtype(at::kFloat));
  ForRowBlocks(grad_TN.device(), rows, width, [&](int64_t block, int64_t begin, int64_t end) {
    at::Tensor sum = partial.select(0, block);
    at::sum_out(sum, grad_TN.slice(0, begin, end), 0, /*keepdim=*/false, at::kFloat);
  });
  WriteGradient(partial.sum(0), destination);
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
