// The auxiliary load-balancing loss of one micro-batch, pooled over all MoE layers and all ranks.
//
//   loss = E * sum_e (count_e / N) (probability_e / N)
// with N the valid tokens times layers, count_e the choices of expert e and probability_e the sum
// of its router probabilities. Forward fills the statistics layer by layer, one all-reduce follows,
// then the gradient is known: the same vector over E for every valid token of every layer. All
// values stay on the device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/ops/router.h"

namespace switchyard::trainer {

class LoadBalance {
 public:
  LoadBalance(int64_t num_moe_layers, int64_t num_experts, at::Device device);

  // Where MoE layer `moe_layer` writes the statistics of its routing.
  ops::RouterStatistics Statistics(int64_t moe_layer) const;
  // Sums over the ranks of `world`, after every layer has written; a collective. `valid_tokens`: of
  // this rank. `scale` multiplies the loss in the gradient.
  void Reduce(Communicator& world, int64_t valid_tokens, double scale);

  // After Reduce: over all ranks and layers; float64 [1].
  const at::Tensor& loss() const { return loss_; }
  // After Reduce: float32 [E], scale times the derivative by each valid token's probabilities;
  // undefined when the scale is 0.
  const at::Tensor& grad_probability_E() const { return grad_probability_; }
  // Of this rank, until the next forward: int32 [MoE layers, E].
  const at::Tensor& tokens_per_expert() const { return count_ME_; }
  // Of this rank: mean entropy of the router's distribution, nats; float64 [1].
  at::Tensor router_entropy(int64_t valid_tokens) const;

 private:
  at::Tensor count_ME_;        // int32 [MoE layers, E]
  at::Tensor probability_ME_;  // float32 [MoE layers, E]
  at::Tensor entropy_M_;       // float32 [MoE layers]
  at::Tensor loss_;
  at::Tensor grad_probability_;
};

}  // namespace switchyard::trainer
