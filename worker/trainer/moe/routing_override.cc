#include "worker/trainer/moe/routing_override.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <utility>

namespace switchyard::trainer {
namespace {

class RoutingOverride final : public TokenDispatcher {
 public:
  RoutingOverride(std::unique_ptr<TokenDispatcher> dispatcher, const at::Tensor& chosen_TK)
      : dispatcher_(std::move(dispatcher)), chosen_TK_(chosen_TK) {}

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
  at::Tensor chosen_TK_;  // [max tokens, K], as the router's choices are
};

// Expert of choice `choice` of token `token`.
int64_t ChosenExpert(const RoutingOverrideOptions& o, int64_t token, int64_t choice) {
  if (!o.scattered) return (token * o.top_k + choice) % o.num_experts;
  // The multiplier is odd and large: successive tokens start far apart.
  const int64_t start = static_cast<int64_t>(static_cast<uint32_t>(token) * 2654435761u >> 8);
  return (start + choice * std::max<int64_t>(1, o.num_experts / o.top_k)) % o.num_experts;
}

}  // namespace

std::unique_ptr<TokenDispatcher> MakeRoutingOverride(std::unique_ptr<TokenDispatcher> dispatcher,
                                                     const RoutingOverrideOptions& options) {
  at::Tensor chosen_TK = at::empty({options.max_tokens, options.top_k}, at::kLong);
  int64_t* to = chosen_TK.mutable_data_ptr<int64_t>();
  for (int64_t t = 0; t < options.max_tokens; ++t) {
    for (int64_t k = 0; k < options.top_k; ++k) *to++ = ChosenExpert(options, t, k);
  }
  const at::ScalarType type = options.device.is_cpu() ? at::kLong : at::kInt;
  return std::make_unique<RoutingOverride>(std::move(dispatcher),
                                           chosen_TK.to(options.device, type));
}

}  // namespace switchyard::trainer
