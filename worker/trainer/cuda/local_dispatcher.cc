#include "worker/trainer/cuda/local_dispatcher.h"

#include "kernels/routing.h"
#include "worker/trainer/cuda/cuda_check.h"

namespace switchyard::trainer::cuda {
namespace {

// int32 [T, K], the only one of the private tensors.
int32_t* RowOfChoice(const Routing& routing) { return Data<int32_t>(routing.private_tensors[0]); }

class LocalDispatcher final : public TokenDispatcher {
 public:
  LocalDispatcher(int64_t num_experts, int64_t top_k) : num_experts_(num_experts), top_k_(top_k) {}

  Routing Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                   Arena& saved, at::Tensor rows_RD) override {
    const int64_t tokens = x_TD.size(0);
    Routing routing;
    routing.max_rows = MaxRows(tokens);
    routing.expert_offset_L1 = saved.Take({num_experts_ + 1}, at::kInt);
    routing.weight_R = saved.Take({routing.max_rows}, at::kFloat);
    const at::Tensor row_of_choice = saved.Take({tokens, top_k_}, at::kInt);
    routing.private_tensors = {row_of_choice};

    kernels::RoutingParams params{};
    params.expert_TK = Data<int32_t>(expert_TK);
    params.weight_TK = Data<float>(weight_TK);
    params.expert_offset_L1 = Data<int32_t>(routing.expert_offset_L1);
    params.row_of_choice_TK = Data<int32_t>(row_of_choice);
    params.weight_of_row_R = Data<float>(routing.weight_R);
    params.num_tokens = tokens;
    params.num_local_experts = static_cast<int32_t>(num_experts_);
    params.top_k = static_cast<int32_t>(top_k_);
    // The rows are not written yet: their place serves as scratch.
    TORCH_CHECK(kernels::RoutingWorkspaceBytes(params) <= static_cast<int64_t>(rows_RD.nbytes()),
                "rows are too few to hold the routing's scratch");
    Check(kernels::BuildRouting(params, rows_RD.data_ptr(), Stream()), "BuildRouting");
    Scatter(x_TD, routing, rows_RD);
    return routing;
  }

  void Redispatch(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD) override {
    Scatter(x_TD, routing, rows_RD);
  }

  void Combine(const at::Tensor& rows_RD, const Routing& routing, const at::Tensor& residual_TD,
               at::Tensor y_TD) override {
    Sum(rows_RD, routing, &residual_TD, y_TD);
  }

  void DispatchGradient(const at::Tensor& grad_y_TD, const Routing& routing,
                        at::Tensor grad_rows_RD) override {
    Scatter(grad_y_TD, routing, grad_rows_RD);
  }

  void CombineGradient(const at::Tensor& grad_rows_RD, const at::Tensor& grad_weight_R,
                       const Routing& routing, at::Tensor grad_x_TD,
                       at::Tensor grad_weight_TK) override {
    Sum(grad_rows_RD, routing, nullptr, grad_x_TD);
    Check(kernels::GatherChoices({Data<float>(grad_weight_R), RowOfChoice(routing),
                                  Data<float>(grad_weight_TK), grad_weight_TK.numel()},
                                 Stream()),
          "GatherChoices");
  }

  int64_t MaxRows(int64_t num_tokens) const override { return num_tokens * top_k_; }

 private:
  void Scatter(const at::Tensor& x_TD, const Routing& routing, const at::Tensor& rows_RD) const {
    kernels::ScatterRowsParams params{};
    params.x_TD = Bf16(x_TD);
    params.row_of_choice_TK = RowOfChoice(routing);
    params.rows_RD = Bf16(rows_RD);
    params.num_tokens = x_TD.size(0);
    params.hidden = static_cast<int32_t>(x_TD.size(1));
    params.top_k = static_cast<int32_t>(top_k_);
    Check(kernels::ScatterRows(params, Stream()), "ScatterRows");
  }

  void Sum(const at::Tensor& rows_RD, const Routing& routing, const at::Tensor* residual_TD,
           const at::Tensor& y_TD) const {
    kernels::CombineRowsParams params{};
    params.rows_RD = Bf16(rows_RD);
    params.row_of_choice_TK = RowOfChoice(routing);
    params.residual_TD = residual_TD == nullptr ? nullptr : Bf16(*residual_TD);
    params.y_TD = Bf16(y_TD);
    params.num_tokens = y_TD.size(0);
    params.hidden = static_cast<int32_t>(y_TD.size(1));
    params.top_k = static_cast<int32_t>(top_k_);
    Check(kernels::CombineRows(params, Stream()), "CombineRows");
  }

  int64_t num_experts_;
  int64_t top_k_;
};

}  // namespace

std::unique_ptr<TokenDispatcher> MakeCudaLocalDispatcher(int64_t num_experts, int64_t top_k) {
  return std::make_unique<LocalDispatcher>(num_experts, top_k);
}

}  // namespace switchyard::trainer::cuda
