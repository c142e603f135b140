#include "worker/trainer/cuda/routing_override.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <utility>

#include "worker/trainer/moe/routing_override.h"

namespace switchyard::trainer::cuda {
namespace {

class RoutingOverride final : public TokenDispatcher {
 public:
  RoutingOverride(std::unique_ptr<TokenDispatcher> dispatcher, const at::Tensor& chosen_TK)
      : dispatcher_(std::move(dispatcher)), chosen_TK_(chosen_TK.to(at::kCUDA)) {}

  Routing Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                   Arena& saved, at::Tensor rows_RD) override {
    const at::Tensor chosen =
        at::where(expert_TK.lt(0), expert_TK, chosen_TK_.narrow(0, 0, expert_TK.size(0)));
    return dispatcher_->Dispatch(x_TD, chosen, weight_TK, saved, rows_RD);
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
  at::Tensor chosen_TK_;  // int32 [max tokens, K]
};

}  // namespace

std::unique_ptr<TokenDispatcher> MakeCudaRoutingOverride(
    std::unique_ptr<TokenDispatcher> dispatcher, int64_t num_experts, int64_t max_tokens,
    int64_t top_k, bool scattered) {
  at::Tensor chosen = at::empty({max_tokens, top_k}, at::TensorOptions().dtype(at::kInt));
  int32_t* to = chosen.mutable_data_ptr<int32_t>();
  for (int64_t t = 0; t < max_tokens; ++t) {
    for (int64_t k = 0; k < top_k; ++k) {
      to[t * top_k + k] =
          static_cast<int32_t>(OverriddenExpert(t, k, num_experts, top_k, scattered));
    }
  }
  return std::make_unique<RoutingOverride>(std::move(dispatcher), chosen);
}

}  // namespace switchyard::trainer::cuda
