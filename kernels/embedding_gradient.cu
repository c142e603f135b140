#include <cub/device/device_radix_sort.cuh>

#include "kernels/device/vec.cuh"
#include "kernels/embedding_gradient.h"

namespace switchyard::kernels {
namespace {

// Workspace of the sort: keys and tokens before it (int32 [T] each, rounded up), then CUB's.
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

size_t SortBytes(int64_t num_tokens, int32_t vocab) {
  size_t bytes = 0;
  cub::DeviceRadixSort::SortPairs(nullptr, bytes, static_cast<const int32_t*>(nullptr),
                                  static_cast<int32_t*>(nullptr),
                                  static_cast<const int32_t*>(nullptr),
                                  static_cast<int32_t*>(nullptr), num_tokens, 0, KeyBits(vocab));
  return bytes;
}

constexpr int kWarps = 8;      // of a block, and sorted positions that it looks at
constexpr int kUnroll = 4;     // vectors of a row that a lane has in flight
constexpr int kShortRun = 8;   // tokens of one id that a warp sums alone
constexpr int kRowsAhead = 8;  // rows of a longer run that a thread has in flight

template <typename Out>
__device__ __forceinline__ void LoadOrZero(const Out* out, bool load, float (&sum)[kVec]) {
  if (load) {
    Load8(out, sum);
  } else {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum[j] = 0.0f;
  }
}

__device__ __forceinline__ void AddRaw(const uint4& raw, float (&sum)[kVec]) {
  float v[kVec];
  Unpack8(raw, v);
#pragma unroll
  for (int j = 0; j < kVec; ++j) sum[j] += v[j];
}

// The row of one id.
template <typename Out>
struct Row {
  const EmbeddingGradientParams& p;
  Out* out;
  int first_column, end_column;  // that are written

  __device__ Row(const EmbeddingGradientParams& params, Out* table, int32_t id) : p(params) {
    const int64_t begin = static_cast<int64_t>(id) * p.hidden;
    out = table + begin;
    first_column = static_cast<int>(max(p.first_element - begin, int64_t{0}));
    end_column = static_cast<int>(min(p.end_element - begin, static_cast<int64_t>(p.hidden)));
  }

  __device__ uint4 Vector(int32_t token, int column) const {
    return *reinterpret_cast<const uint4*>(p.grad_y_TD + static_cast<int64_t>(token) * p.hidden +
                                           column);
  }

  // A warp's work: the tokens from sorted position `first` on, `count` of them.
  __device__ void SumShort(int64_t first, int count) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int32_t own = lane < count ? p.token_T[first + lane] : 0;
    for (int start = first_column + lane * kVec; start - lane * kVec < end_column;
         start += 32 * kVec * kUnroll) {
      float sum[kUnroll][kVec];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int column = start + u * 32 * kVec;
        if (column < end_column) LoadOrZero(out + column, p.add, sum[u]);
      }
      for (int i = 0; i < count; ++i) {
        const int32_t token = __shfl_sync(~0u, own, i);
        uint4 raw[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          const int column = start + u * 32 * kVec;
          if (column < end_column) raw[u] = Vector(token, column);
        }
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          if (start + u * 32 * kVec < end_column) AddRaw(raw[u], sum[u]);
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int column = start + u * 32 * kVec;
        if (column < end_column) Store8(out + column, sum[u]);
      }
    }
  }

  // A block's work: the tokens from sorted position `first` on, to the last of the id.
  __device__ void SumLong(int64_t first, int32_t id) const {
    for (int column = first_column + static_cast<int>(threadIdx.x) * kVec; column < end_column;
         column += kWarps * 32 * kVec) {
      float sum[kVec];
      LoadOrZero(out + column, p.add, sum);
      for (int64_t i = first; i < p.num_tokens && p.sorted_id_T[i] == id; i += kRowsAhead) {
        uint4 raw[kRowsAhead];
        bool is_there[kRowsAhead];
#pragma unroll
        for (int r = 0; r < kRowsAhead; ++r) {
          is_there[r] = i + r < p.num_tokens && p.sorted_id_T[i + r] == id;
          if (is_there[r]) raw[r] = Vector(p.token_T[i + r], column);
        }
#pragma unroll
        for (int r = 0; r < kRowsAhead; ++r) {
          if (is_there[r]) AddRaw(raw[r], sum);
        }
      }
      Store8(out + column, sum);
    }
  }
};

// A warp looks at one sorted position and works when a run of equal ids begins there.
template <typename Out>
__global__ void __launch_bounds__(kWarps * 32)
    SumRunsKernel(const __grid_constant__ EmbeddingGradientParams p, Out* table) {
  __shared__ int32_t long_run[kWarps];  // id of one that begins at a warp's position, or -1
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t block_first = static_cast<int64_t>(blockIdx.x) * kWarps, first = block_first + warp;
  // Ids at first - 1, first, ... by lane.
  const int64_t at = first - 1 + lane;
  const int32_t seen =
      lane < kShortRun + 2 && at >= 0 && at < p.num_tokens ? p.sorted_id_T[at] : -1;
  const int32_t id = __shfl_sync(~0u, seen, 1);
  const uint32_t equal = __ballot_sync(~0u, seen == id);
  const int64_t row_begin = static_cast<int64_t>(id) * p.hidden;
  const bool begins = id >= 0 && (equal & 1u) == 0 && id != p.skipped_id &&
                      row_begin < p.end_element && row_begin + p.hidden > p.first_element;
  const int count = __popc(equal);  // neighbours: the ids are sorted
  const bool is_long = begins && count > kShortRun;
  if (lane == 0) long_run[warp] = is_long ? id : -1;
  if (begins && !is_long) Row<Out>(p, table, id).SumShort(first, count);
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) {
    if (long_run[w] >= 0) Row<Out>(p, table, long_run[w]).SumLong(block_first + w, long_run[w]);
  }
}

}  // namespace

int64_t SortTokensWorkspaceBytes(int64_t num_tokens, int32_t vocab) {
  return 2 * Layout(num_tokens).array_bytes + static_cast<int64_t>(SortBytes(num_tokens, vocab));
}

cudaError_t SortTokens(const SortTokensParams& p, void* workspace, cudaStream_t stream) {
  if (p.num_tokens < 0 || p.num_tokens > INT32_MAX || p.vocab <= 0) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  const Layout layout(p.num_tokens);
  PrepareKernel<<<(p.num_tokens + 255) / 256, 256, 0, stream>>>(
      p.id_T, p.num_tokens, layout.array(workspace, 0), layout.array(workspace, 1));
  size_t bytes = SortBytes(p.num_tokens, p.vocab);
  return cub::DeviceRadixSort::SortPairs(static_cast<char*>(workspace) + 2 * layout.array_bytes,
                                         bytes, layout.array(workspace, 0), p.sorted_id_T,
                                         layout.array(workspace, 1), p.token_T, p.num_tokens, 0,
                                         KeyBits(p.vocab), stream);
}

cudaError_t EmbeddingGradient(const EmbeddingGradientParams& p, cudaStream_t stream) {
  if (p.num_tokens < 0 || p.num_tokens > INT32_MAX || p.hidden <= 0 || p.hidden % kVec != 0 ||
      p.first_element < 0 || p.first_element % kVec != 0 || p.end_element % kVec != 0 ||
      (p.grad_table_VD != nullptr) == (p.grad_table_float32_VD != nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (p.num_tokens == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((p.num_tokens + kWarps - 1) / kWarps);
  if (p.grad_table_VD != nullptr) {
    SumRunsKernel<<<blocks, kWarps * 32, 0, stream>>>(p, p.grad_table_VD);
  } else {
    SumRunsKernel<<<blocks, kWarps * 32, 0, stream>>>(p, p.grad_table_float32_VD);
  }
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
