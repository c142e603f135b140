// The auxiliary load-balancing loss of one micro-batch, pooled over all MoE layers and all ranks.
//
//   loss = E * sum_e (count_e / N) (probability_e / N)
// with N the valid tokens times layers, count_e the choices of expert e and probability_e the sum
// of its router probabilities. Forward adds layer by layer, one all-reduce follows, then the
// gradient is known: the same vector over E for every valid token of every layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/trainer/comm/communicator.h"

namespace switchyard::trainer {

class LoadBalance {
 public:
  LoadBalance(int64_t num_moe_layers, int64_t num_experts, at::Device device);

  void Reset();
  // Adds the routing of MoE layer `moe_layer`; see ops::RouteTokens for the arguments.
  void Add(int64_t moe_layer, const at::Tensor& probability_TE, const at::Tensor& expert_TK,
           const at::Tensor& valid_T);
  // Sums over the ranks of `world`; a collective. `scale` multiplies the loss in the gradient.
  void Reduce(Communicator& world, double scale);

  // After Reduce: over all ranks and layers.
  double loss() const { return loss_; }
  // After Reduce: float32 [E], scale times the derivative by each valid token's probabilities;
  // undefined when the scale is 0.
  const at::Tensor& grad_probability_E() const { return grad_probability_; }
  // Of this rank: int64 [MoE layers, E] on the host.
  at::Tensor tokens_per_expert() const;
  // Of this rank: mean entropy of the router's distribution, nats.
  double router_entropy() const;

 private:
  int64_t num_experts_;
  at::Tensor count_LE_;     // float64 [MoE layers, E]
  at::Tensor probability_;  // float64 [E]
  at::Tensor scalars_;      // float64 [2]: valid tokens times layers, sum of entropies
  at::Tensor grad_probability_;
  double loss_ = 0;
};

}  // namespace switchyard::trainer
