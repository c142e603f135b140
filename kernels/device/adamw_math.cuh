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
// What one update has for all elements of a tensor.
struct AdamwFactors {
  float decay;        // of the weight
  float grad_first;   // of the gradient in the first moment
  float grad_second;  // of the gradient before it is squared
  float root;         // of the second moment's root
  float step;
};

// The same with approximate division and square root (relative error about 2^-22): for values that
// are rounded to bfloat16 next, where IEEE division would cost more than the memory traffic.
__device__ __forceinline__ void AdamwUpdateApproximate(const AdamwParams& p, const AdamwFactors& f,
                                                       float grad, float& weight, float& exp_avg,
                                                       float& exp_avg_sq) {
  const float second = grad * f.grad_second;
  exp_avg = fmaf(grad, f.grad_first, p.beta1 * exp_avg);
  exp_avg_sq = fmaf(second, second, p.beta2 * exp_avg_sq);
  float root, inverse;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(exp_avg_sq));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(fmaf(root, f.root, p.eps)));
  weight = fmaf(-f.step, exp_avg * inverse, weight * f.decay);
}
#endif

// Random bits for eight neighbouring elements: 16 an element. Its weight is rounded by them as they
// are, its two moments by other permutations of the values, so that each rounding by itself is
// unbiased: drawing three times as many would cost more than the memory traffic. `offset` is the
// first element's place in its checkpoint tensor; a multiple of 8 on any mesh.
struct AdamwRandom {
  uint32_t word[4];  // two elements each, the first in the low half
  // Odd factors permute 2^32 values, and the low halves among themselves.
  SWITCHYARD_HOST_DEVICE static uint32_t ForExpAvg(uint32_t word) {
    return word * 0x9E3779B1u + 0x3C6EF372u;
  }
  SWITCHYARD_HOST_DEVICE static uint32_t ForExpAvgSq(uint32_t word) {
    return word * 0x85EBCA77u + 0x27D4EB2Fu;
  }
  SWITCHYARD_HOST_DEVICE static uint32_t Half(uint32_t word, int j) {
    return j % 2 == 0 ? word & 0xffffu : word >> 16;
  }
  SWITCHYARD_HOST_DEVICE uint32_t weight(int j) const { return Half(word[j / 2], j); }
  SWITCHYARD_HOST_DEVICE uint32_t exp_avg(int j) const { return Half(ForExpAvg(word[j / 2]), j); }
  SWITCHYARD_HOST_DEVICE uint32_t exp_avg_sq(int j) const {
    return Half(ForExpAvgSq(word[j / 2]), j);
  }
};

// Draws of one tensor in one step.
struct AdamwKey {
  uint32_t key, mask;
};

SWITCHYARD_HOST_DEVICE inline AdamwKey MakeAdamwKey(uint64_t seed, uint32_t step,
                                                    uint32_t tensor_id) {
  const PhiloxWords words = Philox4x32({{tensor_id, step, 0, 0}}, static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32));
  return {words.word[0], words.word[1]};
}

// 64 random bits and, as their odd multiples, 64 more: each word by itself is as good as drawn.
SWITCHYARD_HOST_DEVICE inline AdamwRandom DrawAdamw(const AdamwKey& key, int64_t offset) {
  const uint64_t group = static_cast<uint64_t>(offset) / 8;
  uint32_t a = static_cast<uint32_t>(group), b = static_cast<uint32_t>(group >> 32) ^ key.mask;
  Philox2x32(a, b, key.key);
  return {{a, b, a * 0xC2B2AE35u + b, b * 0x2545F491u + a}};
}

}  // namespace switchyard::kernels
