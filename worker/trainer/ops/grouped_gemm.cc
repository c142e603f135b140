#include "worker/trainer/ops/grouped_gemm.h"

#include <ATen/ops/mm.h>

#include <algorithm>

#include "worker/trainer/ops/device_ops.h"
#include "worker/trainer/ops/swiglu.h"

namespace switchyard::trainer::ops {
namespace {

// Calls fn(expert, first, count, starts) for each expert with rows in the piece of `n` rows: its
// rows first .. first + count - 1 of the piece; `starts`: they are the expert's first rows of all.
template <typename Fn>
void ForExperts(const ExpertRows& rows, int64_t n, const Fn& fn) {
  const int32_t* offset = rows.offset_L1.const_data_ptr<int32_t>();
  for (int64_t l = 0; l + 1 < rows.offset_L1.numel(); ++l) {
    const int64_t first = std::max<int64_t>(offset[l], rows.begin);
    const int64_t last = std::min<int64_t>(offset[l + 1], rows.begin + n);
    if (first < last) fn(l, first - rows.begin, last - first, first == offset[l]);
  }
}

// The offsets of a piece of `n` rows, on the device. A piece at the begin needs no others: rows
// beyond the end of its tensors are left out.
at::Tensor PieceOffsets(const ExpertRows& rows, int64_t n) {
  return rows.begin == 0 ? rows.offset_L1 : rows.offset_L1.sub(rows.begin).clamp_(0, n);
}

}  // namespace

void GroupedGemm(const ExpertRows& rows, const at::Tensor& x, const at::Tensor& weight,
                 at::Tensor out) {
  if (!x.is_cpu()) {
    return Device().GroupedGemm(PieceOffsets(rows, x.size(0)), x, weight, out);
  }
  ForExperts(rows, x.size(0), [&](int64_t l, int64_t first, int64_t count, bool) {
    at::Tensor part = out.narrow(0, first, count);
    at::mm_out(part, x.narrow(0, first, count), weight.select(0, l).t());
  });
}

void GroupedGemmSwiGlu(const ExpertRows& rows, const at::Tensor& x, const at::Tensor& weight,
                       const at::Tensor& weight_n, at::Tensor gate_up, at::Tensor h) {
  if (!x.is_cpu()) {
    return Device().GroupedGemmSwiGlu(PieceOffsets(rows, x.size(0)), x, weight, weight_n, gate_up,
                                      h);
  }
  GroupedGemm(rows, x, weight, gate_up);
  SwiGlu(gate_up, weight_n, h);
}

void GroupedGemmTransposed(const ExpertRows& rows, const at::Tensor& x, const at::Tensor& weight,
                           at::Tensor out) {
  if (!x.is_cpu()) return Device().GroupedGemmTransposed(rows.offset_L1, x, weight, out);
  ForExperts(rows, x.size(0), [&](int64_t l, int64_t first, int64_t count, bool) {
    at::Tensor part = out.narrow(0, first, count);
    at::mm_out(part, x.narrow(0, first, count), weight.select(0, l));
  });
}

void GroupedWeightGradient(const ExpertRows& rows, const at::Tensor& grad, const at::Tensor& x,
                           const WeightGradient& destination) {
  if (!x.is_cpu()) return Device().GroupedWeightGradient(rows.offset_L1, grad, x, destination);
  if (rows.begin == 0 && !destination.accumulate) {
    const int32_t* offset = rows.offset_L1.const_data_ptr<int32_t>();
    for (int64_t l = 0; l + 1 < rows.offset_L1.numel(); ++l) {
      if (offset[l] == offset[l + 1]) destination.value.select(0, l).zero_();
    }
  }
  ForExperts(rows, x.size(0), [&](int64_t l, int64_t first, int64_t count, bool starts) {
    WeightGradient expert = destination.Select(l);
    expert.accumulate = destination.accumulate || !starts;
    WriteMatrixGradient(grad.narrow(0, first, count), x.narrow(0, first, count), expert);
  });
}

}  // namespace switchyard::trainer::ops
