// How evenly tokens went to experts in one step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "common/model/model_shape.h"
#include "worker/trainer/train/lines.h"

namespace switchyard::trainer {

struct ExpertLoadSummary {
  double max_over_mean = 0;         // of the worst layer's busiest expert
  int64_t dead_experts = 0;         // of all layers, without a token
  double router_entropy_ratio = 0;  // mean router entropy over log(experts)
};

// tokens_per_expert: int64 [MoE layers, E], over all ranks. router_entropy in nats.
ExpertLoadSummary SummarizeExpertLoad(const at::Tensor& tokens_per_expert, double router_entropy);
ExpertLoadReport MakeExpertLoadReport(int64_t step, const ModelShape& shape,
                                      const at::Tensor& tokens_per_expert);

}  // namespace switchyard::trainer
