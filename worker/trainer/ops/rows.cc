#include "worker/trainer/ops/rows.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <algorithm>
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

// Tokens in order of their id, and where each run of equal ids starts.
struct RunsById {
  std::vector<int64_t> token;
  std::vector<int64_t> start;  // one more than there are runs
};

RunsById SortById(const at::Tensor& id_T, int64_t skipped_id) {
  const int64_t* id = id_T.const_data_ptr<int64_t>();
  RunsById runs;
  for (int64_t t = 0; t < id_T.numel(); ++t) {
    if (id[t] != skipped_id) runs.token.push_back(t);
  }
  std::stable_sort(runs.token.begin(), runs.token.end(),
                   [id](int64_t a, int64_t b) { return id[a] < id[b]; });
  for (size_t i = 0; i < runs.token.size(); ++i) {
    if (i == 0 || id[runs.token[i]] != id[runs.token[i - 1]]) {
      runs.start.push_back(static_cast<int64_t>(i));
    }
  }
  runs.start.push_back(static_cast<int64_t>(runs.token.size()));
  return runs;
}

template <typename T, typename Out>
void AddEmbeddingGradientCpu(const at::Tensor& grad_TD, const at::Tensor& id_T, int64_t skipped_id,
                             at::Tensor& destination) {
  const int64_t width = grad_TD.size(1);
  const T* grad = grad_TD.const_data_ptr<T>();
  const int64_t* id = id_T.const_data_ptr<int64_t>();
  Out* out = destination.mutable_data_ptr<Out>();
  const RunsById runs = SortById(id_T, skipped_id);
  const int64_t count = static_cast<int64_t>(runs.start.size()) - 1;
  at::parallel_for(0, count, kGrainRows, [&](int64_t begin, int64_t end) {
    std::vector<float> sum(width);
    for (int64_t run = begin; run < end; ++run) {
      Out* row = out + id[runs.token[runs.start[run]]] * width;
      for (int64_t i = 0; i < width; ++i) sum[i] = static_cast<float>(row[i]);
      for (int64_t i = runs.start[run]; i < runs.start[run + 1]; ++i) {
        AddRow(grad + runs.token[i] * width, width, sum.data());
      }
      for (int64_t i = 0; i < width; ++i) row[i] = static_cast<Out>(sum[i]);
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

void AddEmbeddingGradient(const at::Tensor& grad_TD, const at::Tensor& id_T, int64_t skipped_id,
                          const WeightGradient& destination) {
  at::Tensor out = destination.value;
  if (!grad_TD.device().is_cpu()) {
    Device().AddEmbeddingGradient(grad_TD, id_T, skipped_id, destination);
  } else if (grad_TD.scalar_type() == at::kFloat) {
    AddEmbeddingGradientCpu<float, float>(grad_TD, id_T, skipped_id, out);
  } else if (out.scalar_type() == at::kFloat) {
    AddEmbeddingGradientCpu<at::BFloat16, float>(grad_TD, id_T, skipped_id, out);
  } else {
    AddEmbeddingGradientCpu<at::BFloat16, at::BFloat16>(grad_TD, id_T, skipped_id, out);
  }
}

}  // namespace switchyard::trainer::ops
