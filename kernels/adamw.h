// AdamW over a flat range of parameters, in two profiles.
//
// exact:   weight bfloat16 + int16 remainder = float32 master bit for bit; moments float32; 12
// bytes a parameter. compact: weight and moments bfloat16, stochastically rounded; 6 bytes a
// parameter. Update (Loshchilov & Hutter 2019): g' = g * grad_scale; m = b1 m + (1 - b1) g'; v = b2
// v + (1 - b2) g'^2; w = w (1 - lr * decay) - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

// A run of elements of one checkpoint tensor inside the range. Sorted by begin; begins are
// multiples of 8.
struct AdamwSegment {
  int64_t begin;          // first element in the range; the run ends where the next begins
  int64_t tensor_offset;  // of that element in the checkpoint tensor
  uint32_t tensor_id;     // keys stochastic rounding; the same on any mesh
  float weight_decay;     // decay of this tensor
};

// What one step decides on the device; written by PrepareAdamw.
struct AdamwScalars {
  float grad_scale;                // clip factor
  int32_t skip;                    // non-zero: the update leaves everything as it is
  float correction1, correction2;  // 1 - beta1^t, 1 - beta2^t
  uint32_t step;                   // t, updates so far; keys stochastic rounding
  float grad_norm;                 // before clipping
};

struct PrepareAdamwParams {
  const double* sum_of_squares;  // of the whole gradient
  const double* finite;          // [num_finite]: skip the step when one of them is not finite
  int32_t num_finite;
  double max_norm;  // 0: no clipping
  float beta1, beta2;
  AdamwScalars* scalars;  // device; `step` is read and, unless the step is skipped, advanced
};

// One thread; scale = min(1, max_norm / (norm + 1e-6)).
cudaError_t PrepareAdamw(const PrepareAdamwParams& params, cudaStream_t stream);

struct AdamwParams {
  nv_bfloat16* weight;              // [n], 16-byte aligned, as are the others
  int16_t* remainder;               // [n]; exact only
  float* exp_avg;                   // [n]; exact only
  float* exp_avg_sq;                // [n]; exact only
  nv_bfloat16* compact_exp_avg;     // [n]; compact only
  nv_bfloat16* compact_exp_avg_sq;  // [n]; compact only
  const nv_bfloat16* grad;          // [n] bfloat16, or null when grad_float32 is given
  const float* grad_float32;        // [n] accumulated gradient, or null
  int64_t numel;                    // n, multiple of 8
  const AdamwSegment* segments;     // device, [num_segments]; the first begins at 0
  int32_t num_segments;
  const AdamwScalars* scalars;  // device
  // Device, indexed by tensor_id >> 16, or null: when the step is skipped, 1 is written where an
  // element's square is not finite in float32, nothing elsewhere.
  int32_t* non_finite;
  float learning_rate, beta1, beta2, eps;
  uint64_t seed;  // of the job
};

// exact moves 26 bytes a parameter, compact 14 (bfloat16 gradients). Deterministic.
cudaError_t AdamwExact(const AdamwParams& params, cudaStream_t stream);
cudaError_t AdamwCompact(const AdamwParams& params, cudaStream_t stream);

}  // namespace switchyard::kernels
