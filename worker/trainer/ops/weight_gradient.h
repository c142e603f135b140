// Where the gradient of one parameter goes, and the products that write it.
#pragma once

#include <ATen/core/Tensor.h>

namespace switchyard::trainer::ops {

// Destination of a parameter's gradient.
struct WeightGradient {
  at::Tensor value;         // in the parameter's shape (or a part of it)
  bool accumulate = false;  // add to value; otherwise set it
  // In the activations' dtype, at least as many elements as one matrix; needed only when value is
  // float32, accumulates, and activations are not float32, on CPU.
  at::Tensor scratch;

  // The gradient of element `index` of the first dimension (one expert).
  WeightGradient Select(int64_t index) const;
};

// destination (+)= grad_TN^T x_TK, [N, K].
void WriteMatrixGradient(const at::Tensor& grad_TN, const at::Tensor& x_TK,
                         const WeightGradient& destination);
// destination (+)= sum of the rows of grad_TN, [N]: the gradient of a bias. Added in float32, in an
// order that does not depend on threads.
void WriteBiasGradient(const at::Tensor& grad_TN, const WeightGradient& destination);
// destination (+)= gradient, of the same shape, any floating dtype.
void WriteGradient(const at::Tensor& gradient, const WeightGradient& destination);

}  // namespace switchyard::trainer::ops
