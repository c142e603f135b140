// 16-byte vectors of bfloat16 and float32 as arrays of floats. Pointers must be 16-byte aligned.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace switchyard::kernels {

inline constexpr int kVec = 8;  // bfloat16 elements of one 16-byte access

__device__ __forceinline__ void Unpack8(const uint4& raw, float (&v)[8]) {
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v[2 * i] = __uint_as_float(words[i] << 16);
    v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ void Load8(const nv_bfloat16* p, float (&v)[8]) {
  Unpack8(*reinterpret_cast<const uint4*>(p), v);
}

__device__ __forceinline__ void Load8(const float* p, float (&v)[8]) {
  const float4 a = reinterpret_cast<const float4*>(p)[0];
  const float4 b = reinterpret_cast<const float4*>(p)[1];
  v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
}

// Rounds to nearest even.
__device__ __forceinline__ void Store8(nv_bfloat16* p, const float (&v)[8]) {
  uint4 raw;
  uint32_t* words = reinterpret_cast<uint32_t*>(&raw);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  *reinterpret_cast<uint4*>(p) = raw;
}

__device__ __forceinline__ void Store8(float* p, const float (&v)[8]) {
  reinterpret_cast<float4*>(p)[0] = make_float4(v[0], v[1], v[2], v[3]);
  reinterpret_cast<float4*>(p)[1] = make_float4(v[4], v[5], v[6], v[7]);
}

// Rounds to bfloat16 and back.
__device__ __forceinline__ float RoundBf16(float v) {
  return __bfloat162float(__float2bfloat16_rn(v));
}

}  // namespace switchyard::kernels
