// AdamW over a contiguous run of elements: one pass, no tensors, no communication.
//
// The update of torch.optim.AdamW in float32, operation by operation. With bfloat16 weights the
// float32 master is kept as weight + 16-bit remainder (`exact`): bit for bit what float32 weights
// would be.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace switchyard::trainer {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
};

// The factors of one step.
struct AdamWStep {
  // t counts from 1. gradient_scale multiplies every gradient (clipping). `decay`: apply weight
  // decay.
  AdamWStep(const AdamWOptions& options, double learning_rate, int64_t t, double gradient_scale,
            bool decay);

  float gradient_scale;
  float weight_factor;  // 1 - learning rate x decay
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float step_size;        // learning rate / bias correction of the first moment
  float root_correction;  // square root of the bias correction of the second moment
  float eps;
};

// A float32 value as bfloat16 (round half up in magnitude of the bits) and what is missing to it.
// Values within rounding of the largest finite float32 become infinite weights.
struct SplitFloat {
  c10::BFloat16 weight;
  int16_t remainder;
};
SplitFloat Split(float value);
float Join(SplitFloat split);

// weight, exp_avg, exp_avg_sq: float32 [n]; gradient [n] float or c10::BFloat16. Nothing overlaps.
template <typename Gradient>
void UpdateFloat32(const AdamWStep& step, int64_t n, const Gradient* gradient, float* weight,
                   float* exp_avg, float* exp_avg_sq);
// The same with split weights.
template <typename Gradient>
void UpdateSplit(const AdamWStep& step, int64_t n, const Gradient* gradient, c10::BFloat16* weight,
                 int16_t* remainder, float* exp_avg, float* exp_avg_sq);

}  // namespace switchyard::trainer
