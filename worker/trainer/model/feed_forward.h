// The second half of a decoder layer: dense or mixture of experts, with its norm and residual.
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/trainer/model/step_context.h"

namespace switchyard::trainer {

class FeedForward {
 public:
  virtual ~FeedForward() = default;
  // Writes y_TD = h_TD + network(norm(h_TD)). What is saved comes from `slot`; h_TD is not:
  // Backward gets it again.
  virtual void Forward(StepContext& context, Arena& slot, const at::Tensor& h_TD,
                       at::Tensor y_TD) = 0;
  // grad_TD: gradient of y_TD, becomes the gradient of h_TD. Writes the parameters' gradients.
  virtual void Backward(StepContext& context, const at::Tensor& h_TD, at::Tensor grad_TD) = 0;
};

}  // namespace switchyard::trainer
