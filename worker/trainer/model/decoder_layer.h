// One decoder layer: attention, then a dense or mixture-of-experts feed-forward network.
//
// Saves the residual between the two unless it is to be recomputed.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "common/model/model_shape.h"
#include "worker/trainer/model/attention.h"
#include "worker/trainer/model/feed_forward.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/model/step_context.h"

namespace switchyard::trainer {

class DecoderLayer {
 public:
  // `moe_layer` is the number of MoE layers before this one.
  DecoderLayer(const ModelShape& shape, const ParameterRegistry& registry,
               const GradientStore& gradients, int layer, int moe_layer);

  // Writes y_TD, the next layer's input. x_TD lies in `slot`, which also takes what the layer
  // saves.
  void Forward(StepContext& context, Arena& slot, const at::Tensor& x_TD, at::Tensor y_TD);
  // grad_TD: gradient of y_TD, becomes that of x_TD. Writes the parameters' gradients.
  void Backward(StepContext& context, at::Tensor grad_TD);

 private:
  Attention attention_;
  std::unique_ptr<FeedForward> feed_forward_;
  at::Tensor h_TD_;  // saved, or undefined
};

}  // namespace switchyard::trainer
