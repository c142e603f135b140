// RMSNorm and its gradient.
//
// Called by worker/trainer/ops. Knows nothing of torch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

inline constexpr int kMaxRmsNormHidden = 8192;  // D

// y = x * rstd * gamma with rstd = rsqrt(mean(x^2) + eps), in float32.
struct RmsNormForwardParams {
  const nv_bfloat16* x_TD;     // [T, D], 16-byte aligned
  const nv_bfloat16* gamma_D;  // [D]
  nv_bfloat16* y_TD;           // [T, D]; must not alias an input
  int64_t num_tokens;          // T >= 0
  int32_t hidden;              // D, multiple of 8, at most kMaxRmsNormHidden
  float eps;
};

// Moves 4 * T * D bytes. Deterministic. cudaErrorInvalidValue when a limit is broken.
cudaError_t RmsNormForward(const RmsNormForwardParams& params, cudaStream_t stream);

// With n = x * rstd, computed from x again: dx = rstd * (dy * gamma - n * mean(dy * gamma * n)) +
// residual_gradient; dgamma (+)= sum over tokens of dy * n.
struct RmsNormBackwardParams {
  const nv_bfloat16* x_TD;                  // [T, D]
  const nv_bfloat16* gamma_D;               // [D]
  const nv_bfloat16* grad_y_TD;             // [T, D]
  const nv_bfloat16* residual_gradient_TD;  // [T, D], added to dx; null for none; may alias grad_x
  nv_bfloat16* grad_x_TD;                   // [T, D]; may alias grad_y
  nv_bfloat16* grad_gamma_D;                // [D], overwritten
  int64_t num_tokens;
  int32_t hidden;  // D, multiple of 8, at most kMaxRmsNormHidden
  float eps;
};

// Bytes of `workspace` for RmsNormBackward, 16-byte aligned.
int64_t RmsNormBackwardWorkspaceBytes(int32_t hidden);
// Moves 2 * T * D * 4 bytes. Deterministic.
cudaError_t RmsNormBackward(const RmsNormBackwardParams& params, void* workspace,
                            cudaStream_t stream);

}  // namespace switchyard::kernels
