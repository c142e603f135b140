#include <cub/device/device_radix_sort.cuh>

#include "kernels/device/dependent_launch.cuh"
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

constexpr int kWarps = 8;                // of a block
constexpr int kPiece = kEmbeddingPiece;  // sorted positions of which one warp sums the equal ids
constexpr int kUnroll = 4;               // vectors of a row that a lane has in flight
constexpr int kPartsAhead = 12;          // parts of a long sum that a thread has in flight
static_assert(kPiece + 2 <= 32);

template <typename Out>
__device__ __forceinline__ void LoadOrZero(const Out* out, bool load, float (&sum)[kVec]) {
  if (load) {
    Load8(out, sum);
  } else {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum[j] = 0.0f;
  }
}

// Columns of an id's row that are written.
struct Columns {
  int64_t row_begin;  // element of the table
  int first, end;
  __device__ Columns(const EmbeddingGradientParams& p, int32_t id)
      : row_begin(static_cast<int64_t>(id) * p.hidden),
        first(static_cast<int>(max(p.first_element - row_begin, int64_t{0}))),
        end(static_cast<int>(min(p.end_element - row_begin, static_cast<int64_t>(p.hidden)))) {}
};

__device__ __forceinline__ bool IsWritten(const EmbeddingGradientParams& p, int32_t id) {
  const int64_t begin = static_cast<int64_t>(id) * p.hidden;
  return id >= 0 && id != p.skipped_id && begin < p.end_element &&
         begin + p.hidden > p.first_element;
}

// out (+)= the rows of `count` tokens, of which lane 1 + i has the i-th. By a warp.
template <typename Out>
__device__ __forceinline__ void SumRows(const EmbeddingGradientParams& p, const Columns& columns,
                                        int32_t token, int count, bool add, Out* out) {
  constexpr int kStep = 32 * kVec;
  const int lane_column = static_cast<int>(threadIdx.x) % 32 * kVec;
  for (int start = columns.first; start < columns.end; start += kStep * kUnroll) {
    float sum[kUnroll][kVec];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int column = start + lane_column + u * kStep;
      if (column < columns.end) LoadOrZero(out + column, add, sum[u]);
    }
    for (int i = 0; i < count; ++i) {
      const int64_t t = __shfl_sync(~0u, token, 1 + i);
      const nv_bfloat16* row = p.grad_y_TD + t * p.hidden;
      uint4 raw[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int column = start + lane_column + u * kStep;
        if (column < columns.end) raw[u] = *reinterpret_cast<const uint4*>(row + column);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (start + lane_column + u * kStep >= columns.end) continue;
        float v[kVec];
        Unpack8(raw[u], v);
#pragma unroll
        for (int j = 0; j < kVec; ++j) sum[u][j] += v[j];
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int column = start + lane_column + u * kStep;
      if (column < columns.end) Store8(out + column, sum[u]);
    }
  }
}

// Sorted positions are cut into pieces. A warp looks at one position, and works when a run of equal
// ids begins there or goes on from the piece before: it sums what of the run lies in the piece. A
// run within a piece is done then; of others the parts are kept: slot 0 of a piece for the run that
// comes into it, slot 1 for the one that leaves it.
template <typename Out>
__global__ void __launch_bounds__(kWarps * 32)
    SumPiecesKernel(const __grid_constant__ EmbeddingGradientParams p, Out* table, float* parts) {
  WaitForPrevious();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int64_t piece = first / kPiece, piece_end = (piece + 1) * kPiece;
  // By lane the positions first - 1, first, ... to one beyond the piece.
  const int64_t at = first - 1 + lane;
  const bool is_seen = at >= 0 && at < p.num_tokens && at <= piece_end;
  const int32_t seen = is_seen ? p.sorted_id_T[at] : -1;
  const int32_t token = is_seen ? p.token_T[at] : 0;
  const int32_t id = __shfl_sync(~0u, seen, 1);
  const bool begins = __shfl_sync(~0u, seen, 0) != id;
  const int count = __popc(__ballot_sync(~0u, seen == id && at >= first && at < piece_end));
  const bool leaves = __ballot_sync(~0u, seen == id && at == piece_end) != 0;
  if (!IsWritten(p, id) || (!begins && first % kPiece != 0)) return;
  const Columns columns(p, id);
  if (begins && !leaves) {
    SumRows(p, columns, token, count, p.add, table + columns.row_begin);
  } else {
    SumRows(p, columns, token, count, false, parts + (2 * piece + (begins ? 1 : 0)) * p.hidden);
  }
}

// A block adds, in order, the parts of the run that begins in its piece and leaves it.
template <typename Out>
__global__ void __launch_bounds__(kWarps * 32)
    AddPartsKernel(const __grid_constant__ EmbeddingGradientParams p, Out* table,
                   const float* parts) {
  WaitForPrevious();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t piece = blockIdx.x, begin = piece * kPiece, end = begin + kPiece;
  if (end >= p.num_tokens) return;
  const int32_t id = p.sorted_id_T[end], last = p.sorted_id_T[end - 1];
  const int32_t before = p.sorted_id_T[max(begin - 1, int64_t{0})];
  if (last != id || (before == id && begin > 0) || !IsWritten(p, id)) return;
  int more = 0;  // pieces that the run comes into
  for (int found = kWarps * 32; found == kWarps * 32; more += found) {
    const int64_t at = (piece + 1 + more + thread) * kPiece;
    found = __syncthreads_count(at < p.num_tokens && p.sorted_id_T[at] == id);
  }
  const Columns columns(p, id);
  for (int column = columns.first + thread * kVec; column < columns.end;
       column += kWarps * 32 * kVec) {
    const float* part = parts + 2 * piece * p.hidden + column;
    float sum[kVec], v[kPartsAhead][kVec];
    LoadOrZero(table + columns.row_begin + column, p.add, sum);
    Load8(part + p.hidden, v[0]);
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum[j] += v[0][j];
    for (int i = 1; i <= more; i += kPartsAhead) {
#pragma unroll
      for (int r = 0; r < kPartsAhead; ++r) {
        Load8(part + 2 * static_cast<int64_t>(min(i + r, more)) * p.hidden, v[r]);
      }
#pragma unroll
      for (int r = 0; r < kPartsAhead; ++r) {
        const bool is_there = i + r <= more;
#pragma unroll
        for (int j = 0; j < kVec; ++j) sum[j] += is_there ? v[r][j] : 0.0f;
      }
    }
    Store8(table + columns.row_begin + column, sum);
  }
}

int64_t Pieces(int64_t num_tokens) { return (num_tokens + kPiece - 1) / kPiece; }

template <typename Out>
cudaError_t Launch(const EmbeddingGradientParams& p, Out* table, void* workspace,
                   cudaStream_t stream) {
  float* parts = static_cast<float*>(workspace);
  const auto blocks = static_cast<unsigned>((p.num_tokens + kWarps - 1) / kWarps);
  const cudaError_t error =
      LaunchBehind(SumPiecesKernel<Out>, blocks, kWarps * 32, 0, stream, p, table, parts);
  if (error != cudaSuccess) return error;
  return LaunchBehind(AddPartsKernel<Out>, static_cast<unsigned>(Pieces(p.num_tokens)), kWarps * 32,
                      0, stream, p, table, parts);
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

int64_t EmbeddingGradientWorkspaceBytes(int64_t num_tokens, int32_t hidden) {
  return 2 * Pieces(num_tokens) * hidden * static_cast<int64_t>(sizeof(float));
}

cudaError_t EmbeddingGradient(const EmbeddingGradientParams& p, void* workspace,
                              cudaStream_t stream) {
  if (p.num_tokens < 0 || p.num_tokens > INT32_MAX || p.hidden <= 0 || p.hidden % kVec != 0 ||
      p.first_element < 0 || p.first_element % kVec != 0 || p.end_element % kVec != 0 ||
      (p.grad_table_VD != nullptr) == (p.grad_table_float32_VD != nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (p.num_tokens == 0) return cudaSuccess;
  return p.grad_table_VD != nullptr ? Launch(p, p.grad_table_VD, workspace, stream)
                                    : Launch(p, p.grad_table_float32_VD, workspace, stream);
}

}  // namespace switchyard::kernels
