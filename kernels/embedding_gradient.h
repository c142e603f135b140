// Gradient of an embedding look-up, without float atomics.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

// grad_table[v] (+)= sum, in token order and float32, of grad_y[t] over tokens t with id[t] == v.
struct EmbeddingGradientParams {
  const int64_t* id_T;           // [T] in [0, V)
  const nv_bfloat16* grad_y_TD;  // [T, D], 16-byte aligned
  // [V, D], one of the two; rows of ids that occur are added to, others stay: zero it first.
  nv_bfloat16* grad_table_VD;
  float* grad_table_float32_VD;
  int64_t skipped_id;  // its row gets nothing; -1 for none
  int64_t num_tokens;  // T
  int32_t vocab;       // V
  int32_t hidden;      // D, multiple of 8
};

int64_t EmbeddingGradientWorkspaceBytes(int64_t num_tokens, int32_t vocab);
// Sorts the ids, then one block sums each distinct id's rows. Deterministic.
cudaError_t EmbeddingGradient(const EmbeddingGradientParams& params, void* workspace,
                              cudaStream_t stream);

}  // namespace switchyard::kernels
