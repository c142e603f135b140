#include "worker/trainer/ops/rows.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "worker/trainer/ops/device_ops.h"

namespace switchyard::trainer::ops {
namespace {

constexpr int64_t kGrainRows = 32;

template <typename T>
void AddRow(const T* row, int64_t width, float* sum) {
  for (int64_t i = 0; i < width; ++i) sum[i] += static_cast<float>(row[i]);
}

template <typename T>
void SumChosenRowsCpu(const at::Tensor& rows_RD, const at::Tensor& row_TK,
                      const at::Tensor& residual_TD, at::Tensor& out_TD) {
  const int64_t width = out_TD.size(1), choices = row_TK.size(1);
  const T* rows = rows_RD.const_data_ptr<T>();
  const int64_t* chosen = row_TK.const_data_ptr<int64_t>();
  const T* residual = residual_TD.defined() ? residual_TD.const_data_ptr<T>() : nullptr;
  T* out = out_TD.mutable_data_ptr<T>();
  at::parallel_for(0, out_TD.size(0), kGrainRows, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(width);
    for (int64_t t = begin; t < end; ++t) {
      std::fill(sum.begin(), sum.end(), 0.0f);
      if (residual != nullptr) AddRow(residual + t * width, width, sum.data());
      for (int64_t k = 0; k < choices; ++k) {
        const int64_t r = chosen[t * choices + k];
        if (r >= 0) AddRow(rows + r * width, width, sum.data());
      }
      for (int64_t i = 0; i < width; ++i) out[t * width + i] = static_cast<T>(sum[i]);
    }
  });
}

template <typename T, typename Out>
void AddEmbeddingGradientCpu(const EmbeddingRows& rows, const TokensById& order,
                             const TablePart& part) {
  const int64_t width = rows.grad_TD.size(1), tokens = rows.grad_TD.size(0);
  const T* grad = rows.grad_TD.const_data_ptr<T>();
  const int32_t* id = order.id_T.const_data_ptr<int32_t>();
  const int32_t* token = order.token_T.const_data_ptr<int32_t>();
  Out* table = part.table_VD.mutable_data_ptr<Out>();
  // A task takes the runs of equal ids that begin among its sorted positions.
  at::parallel_for(0, tokens, kGrainRows, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(width);
    for (int64_t first = begin; first < end; ++first) {
      if (id[first] == rows.skipped_id || (first > 0 && id[first - 1] == id[first])) continue;
      const int64_t row = id[first] * width;
      const int64_t from = std::clamp<int64_t>(part.first_element - row, 0, width);
      const int64_t to = std::clamp<int64_t>(part.end_element - row, 0, width);
      for (int64_t i = from; i < to; ++i) {
        sum[i] = part.add ? static_cast<float>(table[row + i]) : 0.0f;
      }
      for (int64_t t = first; t < tokens && id[t] == id[first]; ++t) {
        AddRow(grad + token[t] * width + from, to - from, sum.data() + from);
      }
      for (int64_t i = from; i < to; ++i) table[row + i] = static_cast<Out>(sum[i]);
    }
  });
}

}  // namespace

void SumChosenRows(const at::Tensor& rows_RD, const at::Tensor& row_TK,
                   const at::Tensor& residual_TD, at::Tensor out_TD) {
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, out_TD.scalar_type(), "SumChosenRows", [&] {
    SumChosenRowsCpu<scalar_t>(rows_RD, row_TK, residual_TD, out_TD);
  });
}

void SortTokens(const at::Tensor& id_T, int64_t vocab, const TokensById& out) {
  if (!id_T.is_cpu()) return Device().SortTokens(id_T, vocab, out);
  const int64_t* id = id_T.const_data_ptr<int64_t>();
  int32_t* token = out.token_T.mutable_data_ptr<int32_t>();
  int32_t* sorted = out.id_T.mutable_data_ptr<int32_t>();
  const int64_t tokens = id_T.numel();
  std::iota(token, token + tokens, 0);
  std::stable_sort(token, token + tokens, [id](int32_t a, int32_t b) { return id[a] < id[b]; });
  for (int64_t i = 0; i < tokens; ++i) sorted[i] = static_cast<int32_t>(id[token[i]]);
}

void AddEmbeddingGradient(const EmbeddingRows& rows, const TokensById& order,
                          const TablePart& part) {
  if (!rows.grad_TD.is_cpu()) {
    Device().AddEmbeddingGradient(rows, order, part);
  } else if (rows.grad_TD.scalar_type() == at::kFloat) {
    AddEmbeddingGradientCpu<float, float>(rows, order, part);
  } else if (part.table_VD.scalar_type() == at::kFloat) {
    AddEmbeddingGradientCpu<at::BFloat16, float>(rows, order, part);
  } else {
    AddEmbeddingGradientCpu<at::BFloat16, at::BFloat16>(rows, order, part);
  }
}

void SumEmbeddingRows(const EmbeddingRows& rows, const TablePart& part, Arena& workspace,
                      const std::function<void()>& meanwhile) {
  ArenaScope scope(workspace);
  const TokensById order = {workspace.Take(rows.id_T.sizes(), at::kInt),
                            workspace.Take(rows.id_T.sizes(), at::kInt)};
  const auto sort = [&] { SortTokens(rows.id_T, part.table_VD.size(0), order); };
  if (rows.id_T.is_cpu()) {
    sort();
    meanwhile();
  } else {
    Device().MarkBeside();
    Device().Beside(sort);
    meanwhile();
    Device().JoinBeside();
  }
  AddEmbeddingGradient(rows, order, part);
}

}  // namespace switchyard::trainer::ops
