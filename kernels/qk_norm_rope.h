// RMSNorm of each query and key head followed by rotary position embedding (half layout), and the
// gradient.
//
// The pre-norm projections stay as they are: the backward recomputes from them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

inline constexpr int kMaxHeadsWidth = 10'240;  // (H + G) * C

// Rows of `qkv` are [H query heads | G key heads | G value heads] of C elements; rows of `qk` are
// [H query heads | G key heads]. n = x * rsqrt(mean(x^2) + eps) * gamma over a head, then with
// a = position / theta^(2i / C): (n[i], n[i + C/2]) turned by angle a.
struct QkNormRopeForwardParams {
  const nv_bfloat16* qkv_T;      // [T, (H + 2G) * C], 16-byte aligned
  const nv_bfloat16* q_gamma_C;  // [C]
  const nv_bfloat16* k_gamma_C;  // [C]
  const int32_t* position_T;     // [T] in [0, table rows)
  const float2* rope_table;      // [positions, C / 2] of (cos, sin)
  nv_bfloat16* qk_T;             // [T, (H + G) * C]
  int64_t num_tokens;            // T
  int32_t num_heads;             // H
  int32_t num_kv_heads;          // G
  int32_t head_dim;              // C: 32, 64 or 128; (H + G) * C at most kMaxHeadsWidth
  float eps;
};

// Moves 4 * T * (H + G) * C bytes. Deterministic.
cudaError_t QkNormRopeForward(const QkNormRopeForwardParams& params, cudaStream_t stream);

struct QkNormRopeBackwardParams {
  const nv_bfloat16* qkv_T;  // [T, (H + 2G) * C], the forward's
  const nv_bfloat16* q_gamma_C;
  const nv_bfloat16* k_gamma_C;
  const int32_t* position_T;
  const float2* rope_table;
  // Gradients as attention's library wants to write them, 16-byte aligned.
  const nv_bfloat16* grad_query_T;  // [T, H * C], rows grad_query_stride apart
  const nv_bfloat16* grad_key_T;    // [T, G * C]
  const nv_bfloat16* grad_value_T;  // [T, G * C]: copied
  nv_bfloat16* grad_qkv_T;          // [T, (H + 2G) * C]
  nv_bfloat16* grad_q_gamma_C;      // [C], overwritten
  nv_bfloat16* grad_k_gamma_C;      // [C], overwritten
  int64_t num_tokens;
  int32_t grad_query_stride;  // a multiple of 8
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim;
  float eps;
};

int64_t QkNormRopeBackwardWorkspaceBytes(int32_t head_dim);
// Moves T * (6 * (H + G) + 4 * G) * C bytes. Deterministic.
cudaError_t QkNormRopeBackward(const QkNormRopeBackwardParams& params, void* workspace,
                               cudaStream_t stream);

// Fills table[p][i] = (cos, sin) of p / theta^(2i / C) for p < positions; angles in double
// precision.
cudaError_t FillRopeTable(float2* table, int32_t positions, int32_t head_dim, double theta,
                          cudaStream_t stream);

}  // namespace switchyard::kernels
