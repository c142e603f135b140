#include "worker/trainer/moe/window_dispatcher.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace switchyard::trainer {
namespace {

enum Flag { kRows = 0, kRowsTaken = 1, kBack = 2, kBackTaken = 3 };

// Routing::private_tensors of this dispatcher. P is the ep group's size, N the rows received from
// all ranks (own ones included), one per (source rank, slot) in this order.
enum PrivateTensor {
  kSlotPT,  // int32 [P, T]: slot of this rank's token at each destination, -1 when it does not go
            // there
  kDestinationTK,  // int32 [T, K]: rank of each choice's expert, -1 for padding
  kSourceBegin,    // int32 [P + 1]: rows of source s are kSourceBegin[s] .. kSourceBegin[s + 1]
  kRowOfChoiceNK,  // int32 [N, K]: row in rows_RD of each choice of a received row, -1 when it is
                   // elsewhere
  kOwnToken,       // int32 [rows from this rank itself]: their tokens
};

constexpr int64_t kBlock = 256;  // elements summed at once
constexpr int64_t kGrain = 32;   // rows a thread takes at least

template <typename T>
T* Data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

at::Tensor Int32(at::IntArrayRef sizes) {
  return at::empty(sizes, at::TensorOptions().dtype(at::kInt));
}

// out[i] = sum over `rows` of row[i], in order, accumulated in float32; zeros without rows.
template <typename T>
void SumRows(const std::vector<const T*>& rows, int64_t width, T* out) {
  float sum[kBlock];
  for (int64_t begin = 0; begin < width; begin += kBlock) {
    const int64_t n = std::min(kBlock, width - begin);
    std::fill(sum, sum + n, 0.0f);
    for (const T* row : rows) {
      for (int64_t i = 0; i < n; ++i) sum[i] += static_cast<float>(row[begin + i]);
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = static_cast<T>(sum[i]);
  }
}

class WindowDispatcher final : public TokenDispatcher {
 public:
  WindowDispatcher(SymmetricWindow& window, int64_t num_experts, const DispatchWindowShape& shape)
      : window_(window),
        shape_(shape),
        layout_(shape),
        experts_per_rank_(num_experts / window.size()),
        rows_sent_(window.size(), false),
        back_sent_(window.size(), false) {
    TORCH_CHECK(shape.expert_parallel == window.size() && window.bytes() >= layout_.bytes,
                "the window of ", window.size(), " x ", window.bytes(), " bytes is too small for ",
                shape.expert_parallel, " x ", layout_.bytes);
  }

  Routing Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                   Arena& saved, at::Tensor rows_RD) override;
  void Redispatch(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD) override {
    BringRows(x_TD, routing, rows_RD);
  }
  void Combine(const at::Tensor& rows_RD, const Routing& routing, const at::Tensor& residual_TD,
               at::Tensor y_TD) override {
    SendBack(rows_RD, nullptr, routing);
    ReceiveBack(routing, &residual_TD, y_TD, nullptr);
  }
  void DispatchGradient(const at::Tensor& grad_y_TD, const Routing& routing,
                        at::Tensor grad_rows_RD) override {
    BringRows(grad_y_TD, routing, grad_rows_RD);
  }
  void CombineGradient(const at::Tensor& grad_rows_RD, const at::Tensor& grad_weight_R,
                       const Routing& routing, at::Tensor grad_x_TD,
                       at::Tensor grad_weight_TK) override {
    SendBack(grad_rows_RD, &grad_weight_R, routing);
    ReceiveBack(routing, nullptr, grad_x_TD, &grad_weight_TK);
  }
  int64_t MaxRows(int64_t num_tokens) const override {
    return num_tokens * window_.size() * std::min(shape_.experts_per_token, experts_per_rank_);
  }

 private:
  void BringRows(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD) {
    SendRows(x_TD, routing.private_tensors[kSlotPT]);
    AwaitRows();
    ReceiveRows(x_TD, routing, rows_RD);
  }
  int rank() const { return window_.rank(); }
  int size() const { return window_.size(); }
  // Part of `owner`'s region that concerns `member`.
  template <typename T>
  T* Part(int owner, int member, int64_t part) {
    return reinterpret_cast<T*>(window_.peer(owner) + layout_.At(member, part));
  }
  void CheckRows(const at::Tensor& tensor) const {
    TORCH_CHECK(tensor.is_contiguous() && tensor.is_cpu() && tensor.size(1) == shape_.hidden_size &&
                    tensor.element_size() == shape_.element_bytes,
                "rows must be contiguous [*, ", shape_.hidden_size, "] on the CPU, of ",
                shape_.element_bytes, " bytes an element");
  }
  // Peers in the order (rank + 1), (rank + 2), ...: not all push to the same one first.
  int Peer(int i) const { return (rank() + i) % size(); }

  void PlanSlots(const at::Tensor& expert_TK, at::Tensor slot_PT, at::Tensor destination_TK) const;
  void SendChoices(const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                   const at::Tensor& slot_PT);
  void SendRows(const at::Tensor& x_TD, const at::Tensor& slot_PT);
  void AwaitRows() {
    for (int i = 1; i < size(); ++i) window_.Wait(Peer(i), kRows);
  }
  // Fills in what the choices received from all sources decide.
  void SortRows(Routing& routing, const at::Tensor& slot_PT);
  void ReceiveRows(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD);
  // Sums the rows of every received token and sends them back, with the gradients of its weights if
  // given.
  void SendBack(const at::Tensor& rows_RD, const at::Tensor* weight_R, const Routing& routing);
  void ReceiveBack(const Routing& routing, const at::Tensor* residual_TD, at::Tensor y_TD,
                   at::Tensor* weight_TK);

  SymmetricWindow& window_;
  DispatchWindowShape shape_;
  DispatchWindowLayout layout_;
  int64_t experts_per_rank_;
  std::vector<bool> rows_sent_;  // to each peer, once at least
  std::vector<bool> back_sent_;
};

void WindowDispatcher::PlanSlots(const at::Tensor& expert_TK, at::Tensor slot_PT,
                                 at::Tensor destination_TK) const {
  const int64_t tokens = expert_TK.size(0);
  const int64_t k = expert_TK.size(1);
  const int64_t* expert = expert_TK.const_data_ptr<int64_t>();
  int32_t* slot = Data<int32_t>(slot_PT);
  int32_t* destination = Data<int32_t>(destination_TK);
  std::fill(slot, slot + size() * tokens, -1);
  std::vector<int32_t> next(size(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t choice = t * k; choice < (t + 1) * k; ++choice) {
      TORCH_CHECK(expert[choice] < experts_per_rank_ * size(), "expert ", expert[choice], " of ",
                  experts_per_rank_ * size());
      destination[choice] =
          expert[choice] < 0 ? -1 : static_cast<int32_t>(expert[choice] / experts_per_rank_);
      if (destination[choice] < 0) continue;
      int32_t& at_destination = slot[destination[choice] * tokens + t];
      if (at_destination < 0) at_destination = next[destination[choice]]++;
    }
  }
}

void WindowDispatcher::SendChoices(const at::Tensor& expert_TK, const at::Tensor& weight_TK,
                                   const at::Tensor& slot_PT) {
  const int64_t tokens = expert_TK.size(0);
  const int64_t k = expert_TK.size(1);
  const int64_t* expert = expert_TK.const_data_ptr<int64_t>();
  const float* weight = weight_TK.const_data_ptr<float>();
  for (int i = 1; i <= size(); ++i) {
    const int to = Peer(i);
    if (to != rank() && rows_sent_[to]) window_.Wait(to, kRowsTaken);
    const int32_t* slot = Data<int32_t>(slot_PT) + to * tokens;
    int32_t* expert_there = Part<int32_t>(to, rank(), layout_.expert);
    float* weight_there = Part<float>(to, rank(), layout_.weight);
    int32_t count = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      if (slot[t] < 0) continue;
      ++count;
      for (int64_t c = 0; c < k; ++c) {
        const int64_t local = expert[t * k + c] - to * experts_per_rank_;
        const bool is_there = expert[t * k + c] >= 0 && local >= 0 && local < experts_per_rank_;
        expert_there[slot[t] * k + c] = is_there ? static_cast<int32_t>(local) : -1;
        weight_there[slot[t] * k + c] = is_there ? weight[t * k + c] : 0.0f;
      }
    }
    *Part<int32_t>(to, rank(), layout_.count) = count;
    rows_sent_[to] = false;  // waited for; SendRows need not
  }
}

void WindowDispatcher::SendRows(const at::Tensor& x_TD, const at::Tensor& slot_PT) {
  CheckRows(x_TD);
  const int64_t tokens = x_TD.size(0);
  const int64_t row_bytes = shape_.hidden_size * shape_.element_bytes;
  const std::byte* x = Data<std::byte>(x_TD);
  for (int i = 1; i < size(); ++i) {
    const int to = Peer(i);
    if (rows_sent_[to]) window_.Wait(to, kRowsTaken);
    const int32_t* slot = Data<int32_t>(slot_PT) + to * tokens;
    std::byte* there = window_.peer(to) + layout_.Rows(to, rank());
    at::parallel_for(0, tokens, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        if (slot[t] >= 0) std::memcpy(there + slot[t] * row_bytes, x + t * row_bytes, row_bytes);
      }
    });
    rows_sent_[to] = true;
    window_.Signal(to, kRows);
  }
}

void WindowDispatcher::SortRows(Routing& routing, const at::Tensor& slot_PT) {
  const int64_t k = shape_.experts_per_token;
  const int64_t tokens = slot_PT.size(1);
  at::Tensor source_begin = Int32({size() + 1});
  int32_t* begin = Data<int32_t>(source_begin);
  begin[0] = 0;
  for (int s = 0; s < size(); ++s) {
    begin[s + 1] = begin[s] + *Part<int32_t>(rank(), s, layout_.count);
  }

  // Count, prefix sum, place: stable in (source rank, slot), and slots are in token order.
  routing.expert_offset_L1 = Int32({experts_per_rank_ + 1});
  int32_t* offset = Data<int32_t>(routing.expert_offset_L1);
  std::fill(offset, offset + experts_per_rank_ + 1, 0);
  for (int s = 0; s < size(); ++s) {
    const int32_t* expert = Part<int32_t>(rank(), s, layout_.expert);
    for (int64_t i = 0; i < (begin[s + 1] - begin[s]) * k; ++i) {
      if (expert[i] >= 0) ++offset[expert[i] + 1];
    }
  }
  for (int64_t l = 0; l < experts_per_rank_; ++l) offset[l + 1] += offset[l];
  routing.max_rows = offset[experts_per_rank_];
  routing.weight_R = at::empty({routing.max_rows}, at::TensorOptions().dtype(at::kFloat));
  at::Tensor row_of_choice = Int32({begin[size()], k});
  std::vector<int32_t> next(offset, offset + experts_per_rank_);
  float* weight_R = Data<float>(routing.weight_R);
  for (int s = 0; s < size(); ++s) {
    const int32_t* expert = Part<int32_t>(rank(), s, layout_.expert);
    const float* weight = Part<float>(rank(), s, layout_.weight);
    int32_t* row = Data<int32_t>(row_of_choice) + begin[s] * k;
    for (int64_t i = 0; i < (begin[s + 1] - begin[s]) * k; ++i) {
      row[i] = expert[i] < 0 ? -1 : next[expert[i]]++;
      if (row[i] >= 0) weight_R[row[i]] = weight[i];
    }
  }

  at::Tensor own_token = Int32({begin[rank() + 1] - begin[rank()]});
  const int32_t* own_slot = Data<int32_t>(slot_PT) + rank() * tokens;
  for (int64_t t = 0; t < tokens; ++t) {
    if (own_slot[t] >= 0) Data<int32_t>(own_token)[own_slot[t]] = static_cast<int32_t>(t);
  }
  routing.private_tensors[kSourceBegin] = source_begin;
  routing.private_tensors[kRowOfChoiceNK] = row_of_choice;
  routing.private_tensors[kOwnToken] = own_token;
}

void WindowDispatcher::ReceiveRows(const at::Tensor& x_TD, const Routing& routing,
                                   at::Tensor rows_RD) {
  CheckRows(rows_RD);
  TORCH_CHECK(rows_RD.size(0) >= routing.max_rows, rows_RD.size(0), " rows of room for ",
              routing.max_rows);
  const int64_t k = shape_.experts_per_token;
  const int64_t row_bytes = shape_.hidden_size * shape_.element_bytes;
  const int32_t* source_begin = Data<int32_t>(routing.private_tensors[kSourceBegin]);
  const int32_t* own_token = Data<int32_t>(routing.private_tensors[kOwnToken]);
  const std::byte* x = Data<std::byte>(x_TD);
  std::byte* rows = Data<std::byte>(rows_RD);
  for (int s = 0; s < size(); ++s) {
    const std::byte* received =
        s == rank() ? nullptr : window_.peer(rank()) + layout_.Rows(rank(), s);
    const int32_t* row_of_choice =
        Data<int32_t>(routing.private_tensors[kRowOfChoiceNK]) + source_begin[s] * k;
    at::parallel_for(
        0, source_begin[s + 1] - source_begin[s], kGrain, [&](int64_t begin, int64_t end) {
          for (int64_t slot = begin; slot < end; ++slot) {
            const std::byte* row =
                s == rank() ? x + own_token[slot] * row_bytes : received + slot * row_bytes;
            for (int64_t c = slot * k; c < (slot + 1) * k; ++c) {
              if (row_of_choice[c] >= 0)
                std::memcpy(rows + row_of_choice[c] * row_bytes, row, row_bytes);
            }
          }
        });
    if (s != rank()) window_.Signal(s, kRowsTaken);
  }
}

Routing WindowDispatcher::Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK,
                                   const at::Tensor& weight_TK, Arena& /*saved*/,
                                   at::Tensor rows_RD) {
  const int64_t tokens = x_TD.size(0);
  TORCH_CHECK(tokens <= shape_.max_tokens, tokens, " tokens, but the window holds ",
              shape_.max_tokens);
  TORCH_CHECK(expert_TK.is_contiguous() && weight_TK.is_contiguous() &&
              expert_TK.size(1) == shape_.experts_per_token);
  Routing routing;
  routing.private_tensors.resize(kOwnToken + 1);
  at::Tensor slot_PT = routing.private_tensors[kSlotPT] = Int32({size(), tokens});
  routing.private_tensors[kDestinationTK] = Int32({tokens, expert_TK.size(1)});
  PlanSlots(expert_TK, slot_PT, routing.private_tensors[kDestinationTK]);
  SendChoices(expert_TK, weight_TK, slot_PT);
  SendRows(x_TD, slot_PT);
  AwaitRows();
  SortRows(routing, slot_PT);
  ReceiveRows(x_TD, routing, rows_RD);
  return routing;
}

void WindowDispatcher::SendBack(const at::Tensor& rows_RD, const at::Tensor* weight_R,
                                const Routing& routing) {
  CheckRows(rows_RD);
  const int64_t k = shape_.experts_per_token;
  const int64_t width = shape_.hidden_size;
  const int32_t* source_begin = Data<int32_t>(routing.private_tensors[kSourceBegin]);
  const auto send = [&]<typename T>(T) {
    const T* rows = Data<T>(rows_RD);
    // Other ranks first: they wait.
    for (int i = 1; i <= size(); ++i) {
      const int to = Peer(i);
      if (to != rank() && back_sent_[to]) window_.Wait(to, kBackTaken);
      T* back = Part<T>(to, rank(), layout_.back);
      float* back_weight = Part<float>(to, rank(), layout_.back_weight);
      const int32_t* row_of_choice =
          Data<int32_t>(routing.private_tensors[kRowOfChoiceNK]) + source_begin[to] * k;
      at::parallel_for(0, source_begin[to + 1] - source_begin[to], kGrain,
                       [&](int64_t begin, int64_t end) {
                         std::vector<const T*> parts;
                         for (int64_t slot = begin; slot < end; ++slot) {
                           parts.clear();
                           for (int64_t c = slot * k; c < (slot + 1) * k; ++c) {
                             const int32_t row = row_of_choice[c];
                             if (row >= 0) parts.push_back(rows + row * width);
                             if (weight_R != nullptr)
                               back_weight[c] = row >= 0 ? Data<float>(*weight_R)[row] : 0.0f;
                           }
                           SumRows(parts, width, back + slot * width);
                         }
                       });
      if (to == rank()) continue;
      back_sent_[to] = true;
      window_.Signal(to, kBack);
    }
  };
  rows_RD.scalar_type() == at::kBFloat16 ? send(c10::BFloat16()) : send(float());
}

void WindowDispatcher::ReceiveBack(const Routing& routing, const at::Tensor* residual_TD,
                                   at::Tensor y_TD, at::Tensor* weight_TK) {
  CheckRows(y_TD);
  if (residual_TD != nullptr) CheckRows(*residual_TD);
  const int64_t tokens = y_TD.size(0);
  const int64_t k = shape_.experts_per_token;
  const int64_t width = shape_.hidden_size;
  const int32_t* slot_PT = Data<int32_t>(routing.private_tensors[kSlotPT]);
  const int32_t* destination = Data<int32_t>(routing.private_tensors[kDestinationTK]);
  for (int i = 1; i < size(); ++i) window_.Wait(Peer(i), kBack);
  const auto receive = [&]<typename T>(T) {
    T* y = Data<T>(y_TD);
    at::parallel_for(0, tokens, kGrain, [&](int64_t begin, int64_t end) {
      std::vector<const T*> parts;
      for (int64_t t = begin; t < end; ++t) {
        parts.clear();
        if (residual_TD != nullptr) parts.push_back(Data<T>(*residual_TD) + t * width);
        for (int from = 0; from < size(); ++from) {
          const int32_t slot = slot_PT[from * tokens + t];
          if (slot >= 0) parts.push_back(Part<T>(rank(), from, layout_.back) + slot * width);
        }
        SumRows(parts, width, y + t * width);
        if (weight_TK == nullptr) continue;
        for (int64_t c = t * k; c < (t + 1) * k; ++c) {
          const int32_t from = destination[c];
          Data<float>(*weight_TK)[c] =
              from < 0
                  ? 0.0f
                  : Part<float>(rank(), from,
                                layout_.back_weight)[slot_PT[from * tokens + t] * k + c - t * k];
        }
      }
    });
  };
  y_TD.scalar_type() == at::kBFloat16 ? receive(c10::BFloat16()) : receive(float());
  for (int i = 1; i < size(); ++i) window_.Signal(Peer(i), kBackTaken);
}

}  // namespace

std::unique_ptr<TokenDispatcher> MakeWindowDispatcher(SymmetricWindow& window, int64_t num_experts,
                                                      const DispatchWindowShape& shape) {
  TORCH_CHECK(num_experts % window.size() == 0, "expert_parallel (", window.size(),
              ") must divide the number of experts (", num_experts, ")");
  return std::make_unique<WindowDispatcher>(window, num_experts, shape);
}

}  // namespace switchyard::trainer
