#include <cub/device/device_radix_sort.cuh>

#include "kernels/device/vec.cuh"
#include "kernels/embedding_gradient.h"

namespace switchyard::kernels {
namespace {

// Workspace: keys in, keys out, tokens in, tokens out (int32 [T] each, rounded up), then CUB's.
struct Layout {
  explicit Layout(int64_t num_tokens) : array_bytes((num_tokens * 4 + 255) / 256 * 256) {}
  int64_t array_bytes;
  int32_t* array(void* workspace, int i) const {
    return reinterpret_cast<int32_t*>(static_cast<char*>(workspace) + i * array_bytes);
  }
};

int KeyBits(int32_t vocab) {
  int bits = 1;
  while (bits < 31 && (1 << bits) < vocab) ++bits;
  return bits;
}

__global__ void PrepareKernel(const int64_t* id, int64_t num_tokens, int32_t* keys,
                              int32_t* tokens) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= num_tokens) return;
  keys[t] = static_cast<int32_t>(id[t]);
  tokens[t] = static_cast<int32_t>(t);
}

// Block i works when sorted position i begins a run of equal keys; radix sort is stable, so tokens
// rise.
template <typename Out>
__global__ void SumRunsKernel(EmbeddingGradientParams p, Out* table, const int32_t* keys,
                              const int32_t* tokens) {
  const int64_t first = blockIdx.x;
  const int32_t key = keys[first];
  if (key == p.skipped_id || (first > 0 && keys[first - 1] == key)) return;
  Out* out = table + static_cast<int64_t>(key) * p.hidden;
  for (int column = threadIdx.x * kVec; column < p.hidden; column += blockDim.x * kVec) {
    float sum[kVec];
    Load8(out + column, sum);
    for (int64_t i = first; i < p.num_tokens && keys[i] == key; ++i) {
      float v[kVec];
      Load8(p.grad_y_TD + static_cast<int64_t>(tokens[i]) * p.hidden + column, v);
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum[j] += v[j];
    }
    Store8(out + column, sum);
  }
}

size_t SortBytes(int64_t num_tokens, int32_t vocab) {
  size_t bytes = 0;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, static_cast<const int32_t*>(nullptr),
                                  static_cast<int32_t*>(nullptr),
                                  static_cast<const int32_t*>(nullptr),
                                  static_cast<int32_t*>(nullptr), num_tokens, 0, KeyBits(vocab));
  return bytes;
}

}  // namespace

int64_t EmbeddingGradientWorkspaceBytes(int64_t num_tokens, int32_t vocab) {
  return 4 * Layout(num_tokens).array_bytes + static_cast<int64_t>(SortBytes(num_tokens, vocab));
}

cudaError_t EmbeddingGradient(const EmbeddingGradientParams& p, void* workspace,
                              cudaStream_t stream) {
  if (p.num_tokens < 0 || p.num_tokens > INT32_MAX || p.vocab <= 0 || p.hidden <= 0 ||
      p.hidden % kVec != 0 ||
      (p.grad_table_VD != nullptr) == (p.grad_table_float32_VD != nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (p.num_tokens == 0) return cudaSuccess;
  const Layout layout(p.num_tokens);
  PrepareKernel<<<(p.num_tokens + 255) / 256, 256, 0, stream>>>(
      p.id_T, p.num_tokens, layout.array(workspace, 0), layout.array(workspace, 2));
  size_t bytes = SortBytes(p.num_tokens, p.vocab);
  const cudaError_t error = cub::DeviceRadixSort::SortPairs(
      static_cast<char*>(workspace) + 4 * layout.array_bytes, bytes, layout.array(workspace, 0),
      layout.array(workspace, 1), layout.array(workspace, 2), layout.array(workspace, 3),
      p.num_tokens, 0, KeyBits(p.vocab), stream);
  if (error != cudaSuccess) return error;
  if (p.grad_table_VD != nullptr) {
    SumRunsKernel<<<p.num_tokens, 256, 0, stream>>>(p, p.grad_table_VD, layout.array(workspace, 1),
                                                    layout.array(workspace, 3));
  } else {
    SumRunsKernel<<<p.num_tokens, 256, 0, stream>>>(
        p, p.grad_table_float32_VD, layout.array(workspace, 1), layout.array(workspace, 3));
  }
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
