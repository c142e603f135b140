// Gradient of an embedding look-up, without float atomics: tokens are sorted by id, then each
// distinct id's rows are summed.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

// Tokens by id, equal ids in token order.
struct SortTokensParams {
  const int64_t* id_T;   // [T] in [0, V)
  int32_t* sorted_id_T;  // [T], rising
  int32_t* token_T;      // [T]: whose id that is
  int64_t num_tokens;    // T
  int32_t vocab;         // V
};

int64_t SortTokensWorkspaceBytes(int64_t num_tokens, int32_t vocab);
// A radix sort: a few small kernels, bound by latency.
cudaError_t SortTokens(const SortTokensParams& params, void* workspace, cudaStream_t stream);

// grad_table[v] = (add ? grad_table[v] : 0) + sum in float32 of grad_y[t] over tokens t with
// id[t] == v, for ids that occur; other rows stay as they are.
struct EmbeddingGradientParams {
  const int32_t* sorted_id_T;    // of SortTokens
  const int32_t* token_T;        // of SortTokens
  const nv_bfloat16* grad_y_TD;  // [T, D], 16-byte aligned
  nv_bfloat16* grad_table_VD;    // [V, D], one of the two
  float* grad_table_float32_VD;
  // Elements of the table that are written, of [0, V * D); multiples of 8.
  int64_t first_element, end_element;
  int64_t skipped_id;  // its row gets nothing; -1 for none
  int64_t num_tokens;  // T
  int32_t hidden;      // D, multiple of 8
  bool add;
};

// Sorted tokens are cut into pieces of so many; a sum over several is added up from its parts.
inline constexpr int kEmbeddingPiece = 16;

int64_t EmbeddingGradientWorkspaceBytes(int64_t num_tokens, int32_t hidden);
// Reads 2 * T * D bytes and writes each row of ids that occur; reads it, too, with `add`.
// Deterministic: sums are in token order, of parts where an id's tokens lie in several pieces.
cudaError_t EmbeddingGradient(const EmbeddingGradientParams& params, void* workspace,
                              cudaStream_t stream);

}  // namespace switchyard::kernels
