// The experts of this rank, applied to rows sorted by expert: down(silu(gate) * up * router
// weight).
//
// A list of at most `capacity` rows keeps its gate/up for the backward, if that is to be saved; a
// longer one (a bad routing under expert parallelism) is taken in pieces of `capacity` rows and
// recomputes them. Where the number of rows is on the device, the first `capacity` rows are kept
// and those beyond recomputed, whether there are any or not: the products of an empty piece cost
// their launch. Knows nothing of tokens or ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/model/model_shape.h"
#include "worker/trainer/model/gradient_store.h"
#include "worker/trainer/model/parameter_registry.h"
#include "worker/trainer/model/step_context.h"
#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

class ExpertBank {
 public:
  ExpertBank(const ModelShape& shape, const ParameterRegistry& registry,
             const GradientStore& gradients, int layer);

  // out_RD: the experts' results of rows_RD; may be rows_RD itself. Takes what it saves from
  // `slot`.
  void Forward(StepContext& context, Arena& slot, const Routing& routing, const at::Tensor& rows_RD,
               at::Tensor out_RD);
  // rows_RD: the rows as they were before Forward. grad_rows_RD: in the gradient of the results,
  // out that of the rows. Writes the gradient of the router weights, grad_weight_R (float32), and
  // of the parameters.
  void Backward(StepContext& context, const Routing& routing, const at::Tensor& rows_RD,
                at::Tensor grad_rows_RD, at::Tensor grad_weight_R);

 private:
  void ForwardOnDevice(StepContext& context, const Routing& routing, const at::Tensor& rows_RD,
                       at::Tensor out_RD);
  void BackwardOnDevice(StepContext& context, const Routing& routing, const at::Tensor& rows_RD,
                        at::Tensor grad_rows_RD, at::Tensor grad_weight_R);

  int64_t width_;  // F
  at::Tensor gate_up_proj_, down_proj_;
  ops::WeightGradient grad_gate_up_proj_, grad_down_proj_;
  at::Tensor gate_up_;  // [capacity, 2F]; saved when all rows fit; undefined when not to be saved
};

}  // namespace switchyard::trainer
