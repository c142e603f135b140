#include "worker/trainer/moe/load_balance.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

namespace switchyard::trainer {

LoadBalance::LoadBalance(int64_t num_moe_layers, int64_t num_experts, at::Device device) {
  const auto options = at::TensorOptions().device(device);
  count_ME_ = at::zeros({num_moe_layers, num_experts}, options.dtype(at::kInt));
  probability_ME_ = at::zeros({num_moe_layers, num_experts}, options.dtype(at::kFloat));
  entropy_M_ = at::zeros({num_moe_layers}, options.dtype(at::kFloat));
  loss_ = at::zeros({1}, options.dtype(at::kDouble));
}

ops::RouterStatistics LoadBalance::Statistics(int64_t moe_layer) const {
  return {count_ME_.select(0, moe_layer), probability_ME_.select(0, moe_layer),
          entropy_M_.narrow(0, moe_layer, 1)};
}

void LoadBalance::Reduce(Communicator& world, int64_t valid_tokens, double scale) {
  const int64_t experts = count_ME_.size(1);
  const auto rows = static_cast<double>(valid_tokens * count_ME_.size(0));
  const at::Tensor all = at::cat({count_ME_.sum(0, /*keepdim=*/false, at::kDouble),
                                  probability_ME_.sum(0, /*keepdim=*/false, at::kDouble),
                                  at::full({1}, rows, loss_.options())});
  world.AllReduce(all);
  const at::Tensor count = all.narrow(0, 0, experts);
  // Without any valid token the counts are 0, and so is the loss.
  const at::Tensor factor = all.narrow(0, 2 * experts, 1)
                                .clamp_min(1)
                                .square()
                                .reciprocal()
                                .mul(static_cast<double>(experts));
  loss_ = count.dot(all.narrow(0, experts, experts)).mul(factor);
  grad_probability_ = scale == 0 ? at::Tensor() : count.mul(factor).mul_(scale).to(at::kFloat);
}

at::Tensor LoadBalance::router_entropy(int64_t valid_tokens) const {
  const auto rows = static_cast<double>(valid_tokens * entropy_M_.size(0));
  return entropy_M_.sum(0, /*keepdim=*/true, at::kDouble).div_(rows > 0 ? rows : 1);
}

}  // namespace switchyard::trainer
