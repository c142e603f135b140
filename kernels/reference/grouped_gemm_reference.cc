#include <algorithm>
#include <vector>

#include "kernels/reference/bf16.h"
#include "kernels/reference/reference.h"

namespace switchyard::kernels::reference {
namespace {

std::vector<float> ToFloats(const nv_bfloat16* values, int64_t n) {
  std::vector<float> floats(n);
  for (int64_t i = 0; i < n; ++i) floats[i] = ToFloat(values[i]);
  return floats;
}

}  // namespace

void GroupedGemm(const GroupedGemmShape& shape, const GroupedGemmCall& call,
                 const int32_t* offset_L1, int64_t max_rows) {
  const int64_t n = shape.out_features, k = shape.in_features;
  const bool forward = shape.product == GroupedProduct::kForward;
  const bool gradient = shape.product == GroupedProduct::kWeightGradient;
  const int64_t width_a = forward ? k : n, width_out = forward ? n : k;
  for (int32_t l = 0; l < shape.num_experts; ++l) {
    const int64_t begin = std::min<int64_t>(offset_L1[l], max_rows);
    const int64_t rows = std::min<int64_t>(offset_L1[l + 1], max_rows) - begin;
    const std::vector<float> a = ToFloats(call.a + begin * width_a, rows * width_a);
    const std::vector<float> b =
        gradient ? ToFloats(call.b + begin * k, rows * k) : ToFloats(call.b + l * n * k, n * k);
    // out [m, width_out] = sum over i of left(row, i) * right(i, column)
    const int64_t m = gradient ? n : rows, sum_over = gradient ? rows : width_a;
    std::vector<double> sum(width_out);
    for (int64_t row = 0; row < m; ++row) {
      std::fill(sum.begin(), sum.end(), 0.0);
      for (int64_t i = 0; i < sum_over; ++i) {
        const double left = gradient ? a[i * n + row] : a[row * width_a + i];
        for (int64_t column = 0; column < width_out; ++column) {
          sum[column] += left * (forward ? b[column * k + i] : b[i * k + column]);
        }
      }
      const int64_t at = (gradient ? l * n + row : begin + row) * width_out;
      for (int64_t column = 0; column < width_out; ++column) {
        if (shape.output == GroupedOutput::kBfloat16) {
          static_cast<nv_bfloat16*>(call.out)[at + column] = ToBf16(sum[column]);
        } else {
          float& out = static_cast<float*>(call.out)[at + column];
          out = static_cast<float>((shape.output == GroupedOutput::kFloat32Add ? out : 0.0) +
                                   sum[column]);
        }
      }
    }
  }
}

}  // namespace switchyard::kernels::reference
