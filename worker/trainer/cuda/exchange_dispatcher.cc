#include "worker/trainer/cuda/exchange_dispatcher.h"

#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace switchyard::trainer {
namespace {

// Routing::private_tensors of these dispatchers. P is the ep group's size.
enum PrivateTensor {
  kSlotPT,
  kTokenOfSlotPT,
  kPlaceTK,
  kSendCountP,
  kRecvCountP,
  kRowOfChoicePTK,
  kKept,  // bfloat16 [P - 1, T, D]: rows that peers sent, by source rank without this one
  kNumPrivate
};

template <typename T>
T* Data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

using Bf16 = nv_bfloat16;

struct Saved {
  std::vector<int64_t> sizes;
  at::ScalarType type;
};

// What Dispatch keeps: the private tensors, then the offsets and weights of the rows. Their bytes
// are ExchangeRoutingBytes (common/model/rank_memory.h).
std::vector<Saved> SavedTensors(const DispatchWindowShape& shape, int64_t tokens, int64_t rows,
                                int64_t num_experts) {
  const int64_t ranks = shape.expert_parallel, k = shape.experts_per_token;
  std::vector<Saved> saved(kNumPrivate);
  saved[kSlotPT] = {{ranks, tokens}, at::kInt};
  saved[kTokenOfSlotPT] = {{ranks, tokens}, at::kInt};
  saved[kPlaceTK] = {{tokens, k}, at::kInt};
  saved[kSendCountP] = {{ranks}, at::kInt};
  saved[kRecvCountP] = {{ranks}, at::kInt};
  saved[kRowOfChoicePTK] = {{ranks, tokens, k}, at::kInt};
  saved[kKept] = {{ranks - 1, tokens, shape.hidden_size}, at::kBFloat16};
  saved.push_back({{num_experts / ranks + 1}, at::kInt});
  saved.push_back({{rows}, at::kFloat});
  return saved;
}

}  // namespace

void CheckLaunch(cudaError_t error, const char* kernel) {
  TORCH_CHECK(error == cudaSuccess, kernel, ": ", cudaGetErrorString(error));
}

ExchangeDispatcher::ExchangeDispatcher(int rank, int64_t num_experts,
                                       const DispatchWindowShape& shape,
                                       const ExchangeBlocks& blocks)
    : blocks_(blocks), rank_(rank), num_experts_(num_experts), shape_(shape) {
  TORCH_CHECK(size() >= 2 && size() <= kernels::kMaxExchangeRanks, "expert_parallel is ", size(),
              "; GPUs exchange tokens among 2 to ", kernels::kMaxExchangeRanks, " ranks");
  TORCH_CHECK(num_experts % size() == 0 && num_experts <= kernels::kMaxExchangeExperts, num_experts,
              " experts: must be a multiple of expert_parallel (", size(), ") and at most ",
              kernels::kMaxExchangeExperts);
  TORCH_CHECK(shape.experts_per_token <= kernels::kMaxExchangeTopK, shape.experts_per_token,
              " experts a token; at most ", kernels::kMaxExchangeTopK);
  TORCH_CHECK(shape.max_tokens < kernels::kMaxExchangeTokens, shape.max_tokens,
              " tokens a micro-batch; fewer than ", kernels::kMaxExchangeTokens);
  TORCH_CHECK(shape.hidden_size % 8 == 0 && shape.element_bytes == 2,
              "rows must be bfloat16 with a multiple of 8 elements, not ", shape.hidden_size, " x ",
              shape.element_bytes, " bytes");
  int device = 0;
  CheckLaunch(cudaGetDevice(&device), "cudaGetDevice");
  CheckLaunch(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device),
              "cudaDeviceGetAttribute");
  plan_.num_experts = static_cast<int32_t>(num_experts);
  plan_.top_k = rows_.top_k = back_.top_k = static_cast<int32_t>(shape.experts_per_token);
  rows_.hidden = back_.hidden = static_cast<int32_t>(shape.hidden_size);
  rows_.num_local_experts = static_cast<int32_t>(num_experts / size());
}

int64_t ExchangeDispatcher::MaxRows(int64_t num_tokens) const {
  return size() * num_tokens * std::min(shape_.experts_per_token, num_experts_ / size());
}

void ExchangeDispatcher::CheckTokens(const at::Tensor& x_TD) const {
  TORCH_CHECK(x_TD.is_cuda() && x_TD.is_contiguous() && x_TD.scalar_type() == at::kBFloat16 &&
                  x_TD.size(1) == shape_.hidden_size,
              "rows must be contiguous bfloat16 [*, ", shape_.hidden_size, "] on the GPU, not ",
              x_TD.scalar_type(), " ", x_TD.sizes());
}

Routing ExchangeDispatcher::Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK,
                                     const at::Tensor& weight_TK, Arena& saved,
                                     at::Tensor rows_RD) {
  const int64_t tokens = x_TD.size(0);
  TORCH_CHECK(tokens <= shape_.max_tokens, tokens, " tokens, but the window holds ",
              shape_.max_tokens);
  TORCH_CHECK(expert_TK.is_contiguous() && expert_TK.scalar_type() == at::kInt &&
                  expert_TK.sizes() == at::IntArrayRef({tokens, shape_.experts_per_token}),
              "choices must be contiguous int32 [T, K], not ", expert_TK.scalar_type(), " ",
              expert_TK.sizes());
  TORCH_CHECK(weight_TK.is_contiguous() && weight_TK.scalar_type() == at::kFloat &&
                  weight_TK.sizes() == expert_TK.sizes(),
              "weights must be contiguous float32 [T, K]");
  Routing routing;
  routing.max_rows = MaxRows(tokens);
  TORCH_CHECK(rows_RD.size(0) >= routing.max_rows, rows_RD.size(0), " rows of room for up to ",
              routing.max_rows);
  std::vector<at::Tensor>& tensors = routing.private_tensors;
  for (const Saved& tensor : SavedTensors(shape_, tokens, routing.max_rows, num_experts_)) {
    tensors.push_back(saved.Take(tensor.sizes, tensor.type));
  }
  routing.weight_R = tensors[kNumPrivate + 1];
  routing.expert_offset_L1 = tensors[kNumPrivate];
  tensors.resize(kNumPrivate);

  kernels::DispatchPlanParams plan = plan_;
  plan.expert_TK = expert_TK.const_data_ptr<int32_t>();
  plan.weight_TK = weight_TK.const_data_ptr<float>();
  plan.slot_PT = Data<int32_t>(tensors[kSlotPT]);
  plan.token_of_slot_PT = Data<int32_t>(tensors[kTokenOfSlotPT]);
  plan.place_TK = Data<int32_t>(tensors[kPlaceTK]);
  plan.send_count_P = Data<int32_t>(tensors[kSendCountP]);
  plan.num_tokens = tokens;
  Check();
  CheckLaunch(DispatchPlan(plan, c10::cuda::getCurrentCUDAStream()), "DispatchPlan");
  SendRows(x_TD, routing, /*build=*/true, rows_RD);
  return routing;
}

void ExchangeDispatcher::SendRows(const at::Tensor& x_TD, const Routing& routing, bool build,
                                  at::Tensor rows_RD) {
  CheckTokens(x_TD);
  CheckTokens(rows_RD);
  Check();
  const int64_t tokens = x_TD.size(0);
  kernels::ExchangeRowsParams rows = rows_;
  rows.x_TD = Data<Bf16>(x_TD);
  rows.token_of_slot_PT = Data<int32_t>(routing.private_tensors[kTokenOfSlotPT]);
  rows.send_count_P = Data<int32_t>(routing.private_tensors[kSendCountP]);
  rows.recv_count_P = Data<int32_t>(routing.private_tensors[kRecvCountP]);
  rows.row_of_choice_PTK = Data<int32_t>(routing.private_tensors[kRowOfChoicePTK]);
  rows.expert_offset_L1 = Data<int32_t>(routing.expert_offset_L1);
  rows.weight_R = Data<float>(routing.weight_R);
  rows.rows_RD = Data<Bf16>(rows_RD);
  rows.num_tokens = tokens;
  rows.build = build;
  for (int i = 0, source = 0; build && source < size(); ++source) {
    if (source == rank_) continue;
    rows.keep[source] =
        Data<Bf16>(routing.private_tensors[kKept]) + i++ * tokens * shape_.hidden_size;
  }
  MoveRows(rows);
}

void ExchangeDispatcher::DispatchGradient(const at::Tensor& grad_y_TD, const Routing& routing,
                                          at::Tensor grad_rows_RD) {
  SendRows(grad_y_TD, routing, /*build=*/false, grad_rows_RD);
}

void ExchangeDispatcher::Redispatch(const at::Tensor& x_TD, const Routing& routing,
                                    at::Tensor rows_RD) {
  CheckTokens(x_TD);
  CheckTokens(rows_RD);
  const int64_t tokens = x_TD.size(0);
  kernels::ExchangeRowsParams rows = {};
  rows.control = local_;
  rows.x_TD = Data<Bf16>(x_TD);
  rows.token_of_slot_PT = Data<int32_t>(routing.private_tensors[kTokenOfSlotPT]);
  rows.recv_count_P = Data<int32_t>(routing.private_tensors[kRecvCountP]);
  rows.row_of_choice_PTK = Data<int32_t>(routing.private_tensors[kRowOfChoicePTK]);
  rows.rows_RD = Data<Bf16>(rows_RD);
  rows.num_tokens = tokens;
  rows.hidden = rows_.hidden;
  rows.top_k = rows_.top_k;
  rows.num_local_experts = rows_.num_local_experts;
  for (int i = 0, source = 0; source < size(); ++source) {
    if (source == rank_) continue;
    rows.rows_from[source] =
        Data<Bf16>(routing.private_tensors[kKept]) + i++ * tokens * shape_.hidden_size;
  }
  rows.receive_blocks = multiprocessors_;
  CheckLaunch(ExchangeRows(rows, c10::cuda::getCurrentCUDAStream()), "ExchangeRows");
}

void ExchangeDispatcher::SendBack(const at::Tensor& rows_RD, const at::Tensor* grad_weight_R,
                                  const Routing& routing, const at::Tensor* residual_TD,
                                  at::Tensor y_TD, at::Tensor* grad_weight_TK) {
  CheckTokens(rows_RD);
  CheckTokens(y_TD);
  Check();
  kernels::ExchangeBackParams back = back_;
  back.rows_RD = Data<Bf16>(rows_RD);
  back.row_of_choice_PTK = Data<int32_t>(routing.private_tensors[kRowOfChoicePTK]);
  back.recv_count_P = Data<int32_t>(routing.private_tensors[kRecvCountP]);
  back.slot_PT = Data<int32_t>(routing.private_tensors[kSlotPT]);
  back.place_TK = Data<int32_t>(routing.private_tensors[kPlaceTK]);
  if (residual_TD != nullptr) {
    CheckTokens(*residual_TD);
    back.residual_TD = Data<Bf16>(*residual_TD);
  }
  back.y_TD = Data<Bf16>(y_TD);
  back.num_tokens = y_TD.size(0);
  if (grad_weight_R != nullptr) {
    TORCH_CHECK(grad_weight_TK->is_contiguous() && grad_weight_R->is_contiguous() &&
                    grad_weight_R->scalar_type() == at::kFloat &&
                    grad_weight_TK->scalar_type() == at::kFloat,
                "gradients of weights must be contiguous float32");
    back.grad_weight_R = Data<float>(*grad_weight_R);
    back.grad_weight_TK = Data<float>(*grad_weight_TK);
  }
  MoveBack(back);
}

void ExchangeDispatcher::Combine(const at::Tensor& rows_RD, const Routing& routing,
                                 const at::Tensor& residual_TD, at::Tensor y_TD) {
  SendBack(rows_RD, nullptr, routing, &residual_TD, y_TD, nullptr);
}

void ExchangeDispatcher::CombineGradient(const at::Tensor& grad_rows_RD,
                                         const at::Tensor& grad_weight_R, const Routing& routing,
                                         at::Tensor grad_x_TD, at::Tensor grad_weight_TK) {
  SendBack(grad_rows_RD, &grad_weight_R, routing, nullptr, grad_x_TD, &grad_weight_TK);
}

}  // namespace switchyard::trainer
