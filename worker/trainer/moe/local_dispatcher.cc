// The dispatcher of a mesh without expert parallelism: every expert is here.

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include "worker/trainer/moe/token_dispatcher.h"
#include "worker/trainer/ops/rows.h"

namespace switchyard::trainer {
namespace {

// Of Routing::private_tensors.
enum PrivateTensor { kTokenOfRow = 0, kRowOfChoice = 1, kChoiceOfRow = 2 };

class LocalDispatcher final : public TokenDispatcher {
 public:
  LocalDispatcher(int64_t num_experts, int64_t top_k) : num_experts_(num_experts), top_k_(top_k) {}

  Routing Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                   Arena&, at::Tensor rows_RD) override {
    Routing routing = Sort(expert_TK);
    routing.weight_R = weight_TK.flatten().index_select(0, routing.private_tensors[kChoiceOfRow]);
    Gather(x_TD, routing, rows_RD);
    return routing;
  }

  void Redispatch(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD) override {
    Gather(x_TD, routing, rows_RD);
  }

  void Combine(const at::Tensor& rows_RD, const Routing& routing, const at::Tensor& residual_TD,
               at::Tensor y_TD) override {
    ops::SumChosenRows(rows_RD, routing.private_tensors[kRowOfChoice], residual_TD, y_TD);
  }

  void DispatchGradient(const at::Tensor& grad_y_TD, const Routing& routing,
                        at::Tensor grad_rows_RD) override {
    Gather(grad_y_TD, routing, grad_rows_RD);
  }

  void CombineGradient(const at::Tensor& grad_rows_RD, const at::Tensor& grad_weight_R,
                       const Routing& routing, at::Tensor grad_x_TD,
                       at::Tensor grad_weight_TK) override {
    ops::SumChosenRows(grad_rows_RD, routing.private_tensors[kRowOfChoice], {}, grad_x_TD);
    grad_weight_TK.zero_();
    grad_weight_TK.view(-1).index_copy_(0, routing.private_tensors[kChoiceOfRow],
                                        grad_weight_R.narrow(0, 0, routing.max_rows));
  }

  int64_t MaxRows(int64_t num_tokens) const override { return num_tokens * top_k_; }

 private:
  static void Gather(const at::Tensor& x_TD, const Routing& routing, const at::Tensor& rows_RD) {
    at::Tensor rows = rows_RD.narrow(0, 0, routing.max_rows);
    at::index_select_out(rows, x_TD, 0, routing.private_tensors[kTokenOfRow]);
  }

  // A counting sort of the choices by expert, stable in the tokens.
  Routing Sort(const at::Tensor& expert_TK) const {
    const at::Tensor host = expert_TK.cpu().contiguous();
    const int64_t* expert = host.const_data_ptr<int64_t>();
    const int64_t choices = host.numel();
    const auto int64_host = at::TensorOptions().dtype(at::kLong);
    at::Tensor offset = at::zeros({num_experts_ + 1}, at::TensorOptions().dtype(at::kInt));
    int32_t* first = offset.mutable_data_ptr<int32_t>();
    for (int64_t i = 0; i < choices; ++i) {
      if (expert[i] >= 0) ++first[expert[i] + 1];
    }
    for (int64_t e = 0; e < num_experts_; ++e) first[e + 1] += first[e];
    const int64_t rows = first[num_experts_];

    at::Tensor token_of_row = at::empty({rows}, int64_host);
    at::Tensor choice_of_row = at::empty({rows}, int64_host);
    at::Tensor row_of_choice = at::full({host.size(0), top_k_}, -1, int64_host);
    std::vector<int64_t> next(first, first + num_experts_);
    for (int64_t i = 0; i < choices; ++i) {
      if (expert[i] < 0) continue;
      const int64_t row = next[expert[i]]++;
      token_of_row.mutable_data_ptr<int64_t>()[row] = i / top_k_;
      choice_of_row.mutable_data_ptr<int64_t>()[row] = i;
      row_of_choice.mutable_data_ptr<int64_t>()[i] = row;
    }
    const at::Device device = expert_TK.device();
    Routing routing;
    routing.max_rows = rows;
    routing.expert_offset_L1 = offset;
    routing.private_tensors = {token_of_row.to(device), row_of_choice.to(device),
                               choice_of_row.to(device)};
    return routing;
  }

  int64_t num_experts_;
  int64_t top_k_;
};

}  // namespace

std::unique_ptr<TokenDispatcher> MakeLocalDispatcher(int64_t num_experts, int64_t top_k) {
  return std::make_unique<LocalDispatcher>(num_experts, top_k);
}

}  // namespace switchyard::trainer
