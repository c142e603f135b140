#include "worker/trainer/optim/adamw.h"

#include <bit>
#include <cmath>

namespace switchyard::trainer {
namespace {

inline float Updated(const AdamWStep& step, float gradient, float weight, float& m, float& v) {
  const float g = gradient * step.gradient_scale;
  weight = weight * step.weight_factor;
  m = m + step.one_minus_beta1 * (g - m);
  v = v * step.beta2 + step.one_minus_beta2 * g * g;
  const float denominator = std::sqrt(v) / step.root_correction + step.eps;
  return weight - step.step_size * (m / denominator);
}

inline SplitFloat SplitBits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t high = (bits + 0x8000u) >> 16;
  return {c10::BFloat16(static_cast<uint16_t>(high), c10::BFloat16::from_bits()),
          static_cast<int16_t>(bits - (high << 16))};
}

inline float JoinBits(SplitFloat split) {
  return std::bit_cast<float>((static_cast<uint32_t>(split.weight.x) << 16) +
                              static_cast<uint32_t>(static_cast<int32_t>(split.remainder)));
}

}  // namespace

AdamWStep::AdamWStep(const AdamWOptions& options, double learning_rate, int64_t t, double scale,
                     bool decay)
    : gradient_scale(static_cast<float>(scale)),
      weight_factor(static_cast<float>(decay ? 1 - learning_rate * options.weight_decay : 1)),
      one_minus_beta1(static_cast<float>(1 - options.beta1)),
      beta2(static_cast<float>(options.beta2)),
      one_minus_beta2(static_cast<float>(1 - options.beta2)),
      step_size(static_cast<float>(learning_rate /
                                   (1 - std::pow(options.beta1, static_cast<double>(t))))),
      root_correction(
          static_cast<float>(std::sqrt(1 - std::pow(options.beta2, static_cast<double>(t))))),
      eps(static_cast<float>(options.eps)) {}

SplitFloat Split(float value) { return SplitBits(value); }
float Join(SplitFloat split) { return JoinBits(split); }

template <typename Gradient>
void UpdateFloat32(const AdamWStep& step, int64_t n, const Gradient* __restrict gradient,
                   float* __restrict weight, float* __restrict exp_avg,
                   float* __restrict exp_avg_sq) {
  for (int64_t i = 0; i < n; ++i) {
    weight[i] =
        Updated(step, static_cast<float>(gradient[i]), weight[i], exp_avg[i], exp_avg_sq[i]);
  }
}

template <typename Gradient>
void UpdateSplit(const AdamWStep& step, int64_t n, const Gradient* __restrict gradient,
                 c10::BFloat16* __restrict weight, int16_t* __restrict remainder,
                 float* __restrict exp_avg, float* __restrict exp_avg_sq) {
  for (int64_t i = 0; i < n; ++i) {
    const float master = JoinBits({weight[i], remainder[i]});
    const SplitFloat split = SplitBits(
        Updated(step, static_cast<float>(gradient[i]), master, exp_avg[i], exp_avg_sq[i]));
    weight[i] = split.weight;
    remainder[i] = split.remainder;
  }
}

template void UpdateFloat32(const AdamWStep&, int64_t, const float*, float*, float*, float*);
template void UpdateFloat32(const AdamWStep&, int64_t, const c10::BFloat16*, float*, float*,
                            float*);
template void UpdateSplit(const AdamWStep&, int64_t, const float*, c10::BFloat16*, int16_t*, float*,
                          float*);
template void UpdateSplit(const AdamWStep&, int64_t, const c10::BFloat16*, c10::BFloat16*, int16_t*,
                          float*, float*);

}  // namespace switchyard::trainer
