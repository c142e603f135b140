#include "worker/trainer/moe/routing_override.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <utility>

namespace switchyard::trainer {
namespace {

class RoutingOverride final : public TokenDispatcher {
 public:
  RoutingOverride(std::unique_ptr<TokenDispatcher> dispatcher, int64_t num_experts, bool scattered)
      : dispatcher_(std::move(dispatcher)), num_experts_(num_experts), scattered_(scattered) {}

  Routing Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                   Arena& saved, at::Tensor rows_RD) override {
    at::Tensor chosen_TK = at::empty_like(expert_TK);
    const int64_t k = expert_TK.size(1);
    const int64_t* from = expert_TK.const_data_ptr<int64_t>();
    int64_t* to = chosen_TK.mutable_data_ptr<int64_t>();
    for (int64_t t = 0; t < expert_TK.size(0); ++t) {
      for (int64_t c = 0; c < k; ++c) {
        to[t * k + c] =
            from[t * k + c] < 0 ? -1 : OverriddenExpert(t, c, num_experts_, k, scattered_);
      }
    }
    return dispatcher_->Dispatch(x_TD, chosen_TK, weight_TK, saved, rows_RD);
  }
  void Redispatch(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD) override {
    dispatcher_->Redispatch(x_TD, routing, rows_RD);
  }
  void Combine(const at::Tensor& rows_RD, const Routing& routing, const at::Tensor& residual_TD,
               at::Tensor y_TD) override {
    dispatcher_->Combine(rows_RD, routing, residual_TD, y_TD);
  }
  void DispatchGradient(const at::Tensor& grad_y_TD, const Routing& routing,
                        at::Tensor grad_rows_RD) override {
    dispatcher_->DispatchGradient(grad_y_TD, routing, grad_rows_RD);
  }
  void CombineGradient(const at::Tensor& grad_rows_RD, const at::Tensor& grad_weight_R,
                       const Routing& routing, at::Tensor grad_x_TD,
                       at::Tensor grad_weight_TK) override {
    dispatcher_->CombineGradient(grad_rows_RD, grad_weight_R, routing, grad_x_TD, grad_weight_TK);
  }
  int64_t MaxRows(int64_t num_tokens) const override { return dispatcher_->MaxRows(num_tokens); }

 private:
  std::unique_ptr<TokenDispatcher> dispatcher_;
  int64_t num_experts_;
  bool scattered_;
};

}  // namespace

int64_t OverriddenExpert(int64_t token, int64_t choice, int64_t num_experts, int64_t top_k,
                         bool scattered) {
  if (!scattered) return (token * top_k + choice) % num_experts;
  // The multiplier is odd and large: successive tokens start far apart.
  const int64_t start = static_cast<int64_t>(static_cast<uint32_t>(token) * 2654435761u >> 8);
  return (start + choice * std::max<int64_t>(1, num_experts / top_k)) % num_experts;
}

std::unique_ptr<TokenDispatcher> MakeRoutingOverride(std::unique_ptr<TokenDispatcher> dispatcher,
                                                     int64_t num_experts, bool scattered) {
  return std::make_unique<RoutingOverride>(std::move(dispatcher), num_experts, scattered);
}

}  // namespace switchyard::trainer
