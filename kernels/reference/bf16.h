// bfloat16 on the host.
#pragma once

#include <cuda_bf16.h>

#include <bit>
#include <cmath>
#include <cstdint>

namespace switchyard::kernels {

inline float ToFloat(nv_bfloat16 v) {
  return std::bit_cast<float>(static_cast<uint32_t>(std::bit_cast<uint16_t>(v)) << 16);
}

// Rounds to nearest even.
inline nv_bfloat16 ToBf16(double value) {
  const float v = static_cast<float>(value);
  const uint32_t bits = std::bit_cast<uint32_t>(v);
  return std::bit_cast<nv_bfloat16>(
      std::isnan(v) ? uint16_t{0x7fc0}
                    : static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16));
}

}  // namespace switchyard::kernels
