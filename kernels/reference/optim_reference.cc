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

void EmbeddingGradient(const EmbeddingGradientParams& p) {
  std::vector<double> sum(p.hidden);
  std::vector<std::vector<int64_t>> tokens(p.vocab);
  for (int64_t t = 0; t < p.num_tokens; ++t) tokens[p.id_T[t]].push_back(t);
  for (int v = 0; v < p.vocab; ++v) {
    if (tokens[v].empty() || v == p.skipped_id) continue;
    for (int d = 0; d < p.hidden; ++d) {
      const int64_t at = static_cast<int64_t>(v) * p.hidden + d;
      double total =
          p.grad_table_VD != nullptr ? ToFloat(p.grad_table_VD[at]) : p.grad_table_float32_VD[at];
      for (int64_t t : tokens[v]) total += ToFloat(p.grad_y_TD[t * p.hidden + d]);
      if (p.grad_table_VD != nullptr) {
        p.grad_table_VD[at] = ToBf16(total);
      } else {
        p.grad_table_float32_VD[at] = static_cast<float>(total);
      }
    }
  }
}

}  // namespace switchyard::kernels::reference
