// RMSNorm with the residual add (and the expert-parallel combine) fused in front, and its gradient.
//
// Called by worker/trainer/ops. Knows nothing of torch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

inline constexpr int kMaxAddends = 8;

// sum = x + addend[0] + ... in float32, rounded to bfloat16; y = sum * rsqrt(mean(sum^2) + eps) *
// gamma.
struct RmsNormForwardParams {
  const nv_bfloat16* x_TD;                    // [T, D], 16-byte aligned
  const nv_bfloat16* addend_TD[kMaxAddends];  // [T, D] each; the first num_addends are read
  int num_addends;                            // 0 to kMaxAddends
  nv_bfloat16* sum_TD;         // [T, D]; may alias x or an addend; null when num_addends is 0
  const nv_bfloat16* gamma_D;  // [D]
  nv_bfloat16* y_TD;           // [T, D]; must not alias an input
  float* rstd_T;               // [T]; null when not wanted
  int64_t num_tokens;          // T >= 0
  int32_t hidden;              // D, multiple of 8, at most 8192
  float eps;
};

// Moves 2 * T * D * (3 + num_addends) bytes. Deterministic. cudaErrorInvalidValue when a limit is
// broken.
cudaError_t RmsNormForward(const RmsNormForwardParams& params, cudaStream_t stream);

// With n = x * rstd: dx = rstd * (dy * gamma - n * mean(dy * gamma * n)) + residual_gradient;
// dgamma (+)= sum over tokens of dy * n.
struct RmsNormBackwardParams {
  const nv_bfloat16* x_TD;                  // [T, D]: the forward's sum
  const nv_bfloat16* gamma_D;               // [D]
  const float* rstd_T;                      // [T]; null: computed from x again
  const nv_bfloat16* grad_y_TD;             // [T, D]
  const nv_bfloat16* residual_gradient_TD;  // [T, D], added to dx; null for none; may alias grad_x
  nv_bfloat16* grad_x_TD;                   // [T, D]; may alias grad_y
  nv_bfloat16* grad_gamma_D;                // [D], overwritten
  int64_t num_tokens;
  int32_t hidden;  // D, multiple of 8, at most 8192
  float eps;       // used without rstd_T
};

// Bytes of `workspace` for RmsNormBackward, 16-byte aligned.
int64_t RmsNormBackwardWorkspaceBytes(int32_t hidden);
// Moves 2 * T * D * 4 bytes. Deterministic.
cudaError_t RmsNormBackward(const RmsNormBackwardParams& params, void* workspace,
                            cudaStream_t stream);

}  // namespace switchyard::kernels
