// SwiGLU with the router weight folded in: h = silu(gate) * up * weight.
//
// Weighting h instead of the expert's output lets combine be a plain sum and gives the router its
// gradient without saving the output. The number of rows may be known on the device only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

struct SwigluForwardParams {
  const nv_bfloat16* gate_up_R2F;  // [R, 2F]: gate, then up; 16-byte aligned
  const float* weight_R;           // [R]; null for 1 (dense layers)
  nv_bfloat16* h_RF;               // [R, F]
  int64_t max_rows;                // rows of the buffers
  const int32_t*
      num_rows;  // device: R <= max_rows; null for max_rows. Rows beyond R stay as they are
  int32_t ffn;   // F, multiple of 8
};

// Moves 2 * R * F * 3 bytes. Deterministic.
cudaError_t SwigluForward(const SwigluForwardParams& params, cudaStream_t stream);

// With a = silu(gate) * up: grad_weight = sum over F of grad_h * a; grad_up = grad_h * weight *
// silu(gate); grad_gate = grad_h * weight * up * silu'(gate). h is written again, so that it need
// not be saved.
struct SwigluBackwardParams {
  const nv_bfloat16* gate_up_R2F;  // [R, 2F]
  const float* weight_R;           // [R]; null for 1
  const nv_bfloat16* grad_h_RF;    // [R, F]
  nv_bfloat16* grad_gate_up_R2F;   // [R, 2F]; may alias gate_up
  nv_bfloat16* h_RF;               // [R, F]; may alias grad_h; null when not wanted
  float* grad_weight_R;            // [R]; null when weight_R is null
  int64_t max_rows;
  const int32_t* num_rows;
  int32_t ffn;  // F, multiple of 8
};

// Moves 2 * R * F * 6 bytes. Deterministic.
cudaError_t SwigluBackward(const SwigluBackwardParams& params, cudaStream_t stream);

}  // namespace switchyard::kernels
