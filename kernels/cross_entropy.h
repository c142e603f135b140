// Cross-entropy over a chunk of logits, which are overwritten by their gradient.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

// loss = logsumexp(logits) - logits[target]; grad = (softmax - onehot(target)) * scale. Rows whose
// target is negative get loss 0 and gradient 0.
struct CrossEntropyParams {
  nv_bfloat16* logits_TV;   // [T, V], in: logits, out: gradient; 16-byte aligned
  const int64_t* target_T;  // [T]; negative for none
  float* loss_T;            // [T], nats, not scaled
  int64_t num_tokens;       // T
  int32_t vocab;            // V, multiple of 8
  float scale;              // 1 / targets of the global batch
};

// Reads and writes T * V * 2 bytes once each; of a row longer than 155,648 the rest is read again.
// Deterministic.
cudaError_t CrossEntropyInPlace(const CrossEntropyParams& params, cudaStream_t stream);

}  // namespace switchyard::kernels
