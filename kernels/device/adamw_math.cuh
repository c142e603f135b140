// Arithmetic of AdamW, the same for the kernels and for their host reference.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/adamw.h"
#include "kernels/device/philox.cuh"

#ifdef __CUDACC__
#define SWITCHYARD_HOST_DEVICE __host__ __device__
#else
#define SWITCHYARD_HOST_DEVICE
#endif

namespace switchyard::kernels {

SWITCHYARD_HOST_DEVICE inline uint32_t FloatBits(float v) {
#ifdef __CUDA_ARCH__
  return __float_as_uint(v);
#else
  uint32_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
#endif
}

SWITCHYARD_HOST_DEVICE inline float BitsFloat(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __uint_as_float(bits);
#else
  float v;
  std::memcpy(&v, &bits, sizeof v);
  return v;
#endif
}

// float32 master = (hi << 16) + remainder; hi is the bfloat16 weight, rounded half up in magnitude.
SWITCHYARD_HOST_DEVICE inline float JoinMaster(uint16_t hi, int16_t remainder) {
  return BitsFloat((static_cast<uint32_t>(hi) << 16) +
                   static_cast<uint32_t>(static_cast<int32_t>(remainder)));
}

SWITCHYARD_HOST_DEVICE inline void SplitMaster(float master, uint16_t& hi, int16_t& remainder) {
  const uint32_t bits = FloatBits(master);
  hi = static_cast<uint16_t>((bits + 0x8000u) >> 16);
  remainder = static_cast<int16_t>(bits - (static_cast<uint32_t>(hi) << 16));
}

// Rounds to bfloat16 up or down with probability by distance; `random` has 16 random bits.
SWITCHYARD_HOST_DEVICE inline uint16_t RoundStochastic(float v, uint32_t random) {
  const uint32_t bits = FloatBits(v);
  if ((bits & 0x7f800000u) == 0x7f800000u)
    return static_cast<uint16_t>(bits >> 16 | ((bits & 0xffffu) != 0));
  return static_cast<uint16_t>((bits + (random & 0xffffu)) >> 16);
}

// One update in place, every operation rounded by itself: host and device agree to the bit.
SWITCHYARD_HOST_DEVICE inline void AdamwUpdate(const AdamwParams& p, const AdamwScalars& s,
                                               float weight_decay, float grad, float& weight,
                                               float& exp_avg, float& exp_avg_sq) {
#ifdef __CUDA_ARCH__
  exp_avg = __fadd_rn(__fmul_rn(p.beta1, exp_avg), __fmul_rn(1.0f - p.beta1, grad));
  exp_avg_sq =
      __fadd_rn(__fmul_rn(p.beta2, exp_avg_sq), __fmul_rn(1.0f - p.beta2, __fmul_rn(grad, grad)));
  const float denominator = __fadd_rn(__fsqrt_rn(__fdiv_rn(exp_avg_sq, s.correction2)), p.eps);
  const float step =
      __fdiv_rn(__fmul_rn(p.learning_rate, __fdiv_rn(exp_avg, s.correction1)), denominator);
  weight =
      __fsub_rn(__fmul_rn(weight, __fsub_rn(1.0f, __fmul_rn(p.learning_rate, weight_decay))), step);
#else
  exp_avg = p.beta1 * exp_avg + (1.0f - p.beta1) * grad;
  exp_avg_sq = p.beta2 * exp_avg_sq + (1.0f - p.beta2) * (grad * grad);
  const float denominator = __builtin_sqrtf(exp_avg_sq / s.correction2) + p.eps;
  const float step = p.learning_rate * (exp_avg / s.correction1) / denominator;
  weight = weight * (1.0f - p.learning_rate * weight_decay) - step;
#endif
}

#ifdef __CUDACC__
// The same with approximate division and square root (relative error about 2^-22): for values that
// are rounded to bfloat16 next, where IEEE division would cost more than the memory traffic.
__device__ __forceinline__ void AdamwUpdateApproximate(const AdamwParams& p, float decay_factor,
                                                       float step_size, float inverse_correction2,
                                                       float grad, float& weight, float& exp_avg,
                                                       float& exp_avg_sq) {
  exp_avg = p.beta1 * exp_avg + (1.0f - p.beta1) * grad;
  exp_avg_sq = p.beta2 * exp_avg_sq + (1.0f - p.beta2) * (grad * grad);
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(exp_avg_sq * inverse_correction2));
  weight = weight * decay_factor - __fdividef(step_size * exp_avg, root + p.eps);
}
#endif

// Random bits for eight neighbouring elements: 16 an element. Its weight is rounded by them as they
// are, its two moments by other permutations of the 2^16 values, so that each rounding by itself is
// unbiased: drawing three times as many would cost more than the memory traffic. `offset` is the
// first element's place in its checkpoint tensor; a multiple of 8 on any mesh.
struct AdamwRandom {
  uint32_t word[4];
  SWITCHYARD_HOST_DEVICE uint32_t weight(int j) const {
    return j % 2 == 0 ? word[j / 2] : word[j / 2] >> 16;
  }
  SWITCHYARD_HOST_DEVICE uint32_t exp_avg(int j) const { return weight(j) * 40503u + 12345u; }
  SWITCHYARD_HOST_DEVICE uint32_t exp_avg_sq(int j) const { return weight(j) * 30805u + 54321u; }
};

SWITCHYARD_HOST_DEVICE inline AdamwRandom DrawAdamw(uint64_t seed, uint32_t step,
                                                    uint32_t tensor_id, int64_t offset) {
  const uint64_t group = static_cast<uint64_t>(offset) / 8;
  const PhiloxWords words = Philox4x32(
      {{static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), tensor_id, step}},
      static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  return {{words.word[0], words.word[1], words.word[2], words.word[3]}};
}

}  // namespace switchyard::kernels
