#include "worker/trainer/model/decoder_layer.h"

#include "worker/trainer/model/dense_mlp.h"
#include "worker/trainer/moe/moe_layer.h"

namespace switchyard::trainer {

DecoderLayer::DecoderLayer(const ModelShape& shape, const ParameterRegistry& registry,
                           const GradientStore& gradients, int layer, int moe_layer)
    : attention_(shape, registry, gradients, layer) {
  if (shape.is_moe_layer.at(layer)) {
    feed_forward_ = std::make_unique<MoeLayer>(shape, registry, gradients, layer, moe_layer);
  } else {
    feed_forward_ = std::make_unique<DenseMlp>(shape, registry, gradients, layer);
  }
}

void DecoderLayer::Forward(StepContext& context, Arena& slot, const at::Tensor& x_TD,
                           at::Tensor y_TD) {
  ArenaScope scope(context.workspace);
  const bool saved = context.saved.layer;
  const at::Tensor h_TD = context.Keep(saved, slot).Take(x_TD.sizes(), context.dtype);
  h_TD_ = saved ? h_TD : at::Tensor();
  attention_.Forward(context, slot, x_TD, h_TD);
  feed_forward_->Forward(context, slot, h_TD, y_TD);
}

void DecoderLayer::Backward(StepContext& context, at::Tensor grad_TD) {
  {
    ArenaScope scope(context.workspace);
    at::Tensor h_TD = h_TD_;
    if (!h_TD.defined()) {
      h_TD = context.workspace.Take(grad_TD.sizes(), context.dtype);
      attention_.Project(h_TD);
    }
    feed_forward_->Backward(context, h_TD, grad_TD);
  }
  attention_.Backward(context, grad_TD);
}

}  // namespace switchyard::trainer
