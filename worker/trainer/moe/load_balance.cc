#include "worker/trainer/moe/load_balance.h"

#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/xlogy.h>
#include <ATen/ops/zeros.h>

namespace switchyard::trainer {

LoadBalance::LoadBalance(int64_t num_moe_layers, int64_t num_experts, at::Device device)
    : num_experts_(num_experts) {
  const auto options = at::TensorOptions().dtype(at::kDouble).device(device);
  count_LE_ = at::zeros({num_moe_layers, num_experts}, options);
  probability_ = at::zeros({num_experts}, options);
  scalars_ = at::zeros({2}, options);
}

void LoadBalance::Reset() {
  count_LE_.zero_();
  probability_.zero_();
  scalars_.zero_();
  grad_probability_ = at::Tensor();
  loss_ = 0;
}

void LoadBalance::Add(int64_t moe_layer, const at::Tensor& probability_TE,
                      const at::Tensor& expert_TK, const at::Tensor& valid_T) {
  // Expert -1 of padding is counted in front and dropped.
  const at::Tensor count = at::bincount(expert_TK.flatten().add(1), {}, num_experts_ + 1);
  count_LE_.select(0, moe_layer).copy_(count.narrow(0, 1, num_experts_));
  const at::Tensor valid = valid_T.to(at::kFloat);
  probability_.add_(valid.unsqueeze(0).mm(probability_TE).squeeze(0));
  scalars_.select(0, 0).add_(valid.sum());
  scalars_.select(0, 1).sub_(at::xlogy(probability_TE, probability_TE).sum(1).dot(valid));
}

void LoadBalance::Reduce(Communicator& world, double scale) {
  at::Tensor all = at::cat({count_LE_.sum(0), probability_, scalars_.narrow(0, 0, 1)});
  world.AllReduce(all);
  const double rows = all[2 * num_experts_].item<double>();
  if (rows == 0) return;
  const at::Tensor count = all.narrow(0, 0, num_experts_);
  const double experts = static_cast<double>(num_experts_);
  loss_ =
      experts * count.dot(all.narrow(0, num_experts_, num_experts_)).item<double>() / (rows * rows);
  if (scale != 0) {
    grad_probability_ = count.mul(scale * experts / (rows * rows)).to(at::kFloat);
  }
}

at::Tensor LoadBalance::tokens_per_expert() const { return count_LE_.to(at::kLong).cpu(); }

double LoadBalance::router_entropy() const {
  const double rows = scalars_[0].item<double>();
  return rows == 0 ? 0 : scalars_[1].item<double>() / rows;
}

}  // namespace switchyard::trainer
