#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/device/adamw_math.cuh"
#include "kernels/reference/bf16.h"
#include "kernels/reference/reference.h"

namespace switchyard::kernels::reference {
namespace {

uint16_t Bits(nv_bfloat16 v) { return std::bit_cast<uint16_t>(v); }
nv_bfloat16 FromBits(uint16_t bits) { return std::bit_cast<nv_bfloat16>(bits); }

const AdamwSegment& FindSegment(const AdamwParams& p, int64_t at) {
  int i = p.num_segments - 1;
  while (p.segments[i].begin > at) --i;
  return p.segments[i];
}

float Gradient(const AdamwParams& p, int64_t at) {
  return (p.grad != nullptr ? ToFloat(p.grad[at]) : p.grad_float32[at]) * p.scalars->grad_scale;
}

}  // namespace

void AdamwExact(const AdamwParams& p) {
  if (p.scalars->skip != 0) return;
  for (int64_t i = 0; i < p.numel; ++i) {
    float weight = JoinMaster(Bits(p.weight[i]), p.remainder[i]);
    AdamwUpdate(p, *p.scalars, FindSegment(p, i).weight_decay, Gradient(p, i), weight, p.exp_avg[i],
                p.exp_avg_sq[i]);
    uint16_t hi;
    SplitMaster(weight, hi, p.remainder[i]);
    p.weight[i] = FromBits(hi);
  }
}

void AdamwCompact(const AdamwParams& p) {
  if (p.scalars->skip != 0) return;
  for (int64_t i = 0; i < p.numel; ++i) {
    const AdamwSegment& segment = FindSegment(p, i);
    float weight = ToFloat(p.weight[i]), m = ToFloat(p.compact_exp_avg[i]),
          v = ToFloat(p.compact_exp_avg_sq[i]);
    AdamwUpdate(p, *p.scalars, segment.weight_decay, Gradient(p, i), weight, m, v);
    const int64_t offset = segment.tensor_offset + (i - segment.begin);
    const AdamwRandom random =
        DrawAdamw(MakeAdamwKey(p.seed, p.scalars->step, segment.tensor_id), offset / 8 * 8);
    const int j = static_cast<int>(offset % 8);
    p.weight[i] = FromBits(RoundStochastic(weight, random.weight(j)));
    p.compact_exp_avg[i] = FromBits(RoundStochastic(m, random.exp_avg(j)));
    p.compact_exp_avg_sq[i] = FromBits(RoundStochastic(v, random.exp_avg_sq(j)));
  }
}

void SumOfSquares(const SumOfSquaresParams& p) {
  double sum = p.accumulate ? *p.sum : 0;
  for (int64_t i = 0; i < p.numel; ++i) {
    const double v = p.x != nullptr ? ToFloat(p.x[i]) : p.x_float32[i];
    sum += v * v;
  }
  *p.sum = sum;
}

void CrossEntropyInPlace(const CrossEntropyParams& p) {
  for (int64_t t = 0; t < p.num_tokens; ++t) {
    nv_bfloat16* row = p.logits_TV + t * p.vocab;
    if (p.target_T[t] < 0) {
      for (int v = 0; v < p.vocab; ++v) row[v] = ToBf16(0);
      p.loss_T[t] = 0;
      continue;
    }
    double maximum = -INFINITY, sum = 0;
    for (int v = 0; v < p.vocab; ++v) maximum = std::fmax(maximum, ToFloat(row[v]));
    for (int v = 0; v < p.vocab; ++v) sum += std::exp(ToFloat(row[v]) - maximum);
    p.loss_T[t] = static_cast<float>(maximum + std::log(sum) - ToFloat(row[p.target_T[t]]));
    for (int v = 0; v < p.vocab; ++v) {
      const double softmax = std::exp(ToFloat(row[v]) - maximum) / sum;
      row[v] = ToBf16((softmax - (v == p.target_T[t] ? 1 : 0)) * p.scale);
    }
  }
}

void SortTokens(const SortTokensParams& p) {
  std::vector<int32_t> tokens(p.num_tokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  std::stable_sort(tokens.begin(), tokens.end(),
                   [&](int32_t a, int32_t b) { return p.id_T[a] < p.id_T[b]; });
  for (int64_t i = 0; i < p.num_tokens; ++i) {
    p.token_T[i] = tokens[i];
    p.sorted_id_T[i] = static_cast<int32_t>(p.id_T[tokens[i]]);
  }
}

void EmbeddingGradient(const EmbeddingGradientParams& p) {
  for (int64_t first = 0, end = 0; first < p.num_tokens; first = end) {
    const int64_t id = p.sorted_id_T[first];
    while (end < p.num_tokens && p.sorted_id_T[end] == id) ++end;
    if (id == p.skipped_id) continue;
    for (int d = 0; d < p.hidden; ++d) {
      const int64_t at = id * p.hidden + d;
      if (at < p.first_element || at >= p.end_element) continue;
      const bool bf16 = p.grad_table_VD != nullptr;
      double total = 0;
      if (p.add) total = bf16 ? ToFloat(p.grad_table_VD[at]) : p.grad_table_float32_VD[at];
      for (int64_t i = first; i < end; ++i) {
        total += ToFloat(p.grad_y_TD[static_cast<int64_t>(p.token_T[i]) * p.hidden + d]);
      }
      if (bf16) {
        p.grad_table_VD[at] = ToBf16(total);
      } else {
        p.grad_table_float32_VD[at] = static_cast<float>(total);
      }
    }
  }
}

}  // namespace switchyard::kernels::reference
