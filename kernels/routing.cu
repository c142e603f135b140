#include "kernels/device/grid.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/routing.h"

namespace switchyard::kernels {
namespace {

constexpr int kChunk = 64;  // tokens whose choices of one expert fit the bits of a word
constexpr int kMaxExperts = 512;
constexpr int kScanUnroll = 16;  // loads in flight of the one block that scans

// Bits of `masks[e]`: tokens of the chunk that chose local expert e. OR is order-independent.
__device__ void FillMasks(const RoutingParams& p, int64_t first_token, unsigned long long* masks) {
  for (int e = threadIdx.x; e < p.num_local_experts; e += blockDim.x) masks[e] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < kChunk * p.top_k; i += blockDim.x) {
    const int64_t token = first_token + i / p.top_k;
    if (token >= p.num_tokens) break;
    const int expert = p.expert_TK[first_token * p.top_k + i] - p.first_expert;
    if (expert >= 0 && expert < p.num_local_experts)
      atomicOr(&masks[expert], 1ull << (i / p.top_k));
  }
  __syncthreads();
}

// counts[chunk][e] = rows of expert e in the chunk.
__global__ void CountKernel(RoutingParams p, int32_t* counts) {
  __shared__ unsigned long long masks[kMaxExperts];
  FillMasks(p, static_cast<int64_t>(blockIdx.x) * kChunk, masks);
  for (int e = threadIdx.x; e < p.num_local_experts; e += blockDim.x) {
    counts[static_cast<int64_t>(blockIdx.x) * p.num_local_experts + e] = __popcll(masks[e]);
  }
}

// One block. counts become, in place, the rows of the expert in earlier chunks; then offsets by
// expert.
__global__ void ScanKernel(RoutingParams p, int32_t* counts, int num_chunks) {
  __shared__ int32_t totals[kMaxExperts];
  for (int e = threadIdx.x; e < p.num_local_experts; e += blockDim.x) {
    int32_t sum = 0;
    for (int first = 0; first < num_chunks; first += kScanUnroll) {
      int32_t count[kScanUnroll];
#pragma unroll
      for (int i = 0; i < kScanUnroll; ++i) {
        count[i] = first + i < num_chunks
                       ? counts[static_cast<int64_t>(first + i) * p.num_local_experts + e]
                       : 0;
      }
#pragma unroll
      for (int i = 0; i < kScanUnroll; ++i) {
        if (first + i < num_chunks)
          counts[static_cast<int64_t>(first + i) * p.num_local_experts + e] = sum;
        sum += count[i];
      }
    }
    totals[e] = sum;
  }
  __syncthreads();
  // Hillis-Steele inclusive scan over at most 512 experts.
  for (int step = 1; step < p.num_local_experts; step *= 2) {
    int32_t below = 0;
    const int e = threadIdx.x;
    if (e < p.num_local_experts && e >= step) below = totals[e - step];
    __syncthreads();
    if (e < p.num_local_experts) totals[e] += below;
    __syncthreads();
  }
  if (threadIdx.x == 0) p.expert_offset_L1[0] = 0;
  for (int e = threadIdx.x; e < p.num_local_experts; e += blockDim.x)
    p.expert_offset_L1[e + 1] = totals[e];
}

__global__ void AssignKernel(RoutingParams p, const int32_t* before) {
  __shared__ unsigned long long masks[kMaxExperts];
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * kChunk;
  FillMasks(p, first_token, masks);
  for (int i = threadIdx.x; i < kChunk * p.top_k; i += blockDim.x) {
    const int in_chunk = i / p.top_k;
    const int64_t token = first_token + in_chunk;
    if (token >= p.num_tokens) break;
    const int64_t choice = first_token * p.top_k + i;
    const int expert = p.expert_TK[choice] - p.first_expert;
    if (expert < 0 || expert >= p.num_local_experts) {
      p.row_of_choice_TK[choice] = -1;
      continue;
    }
    const int rank = __popcll(masks[expert] & ((1ull << in_chunk) - 1));
    const int row = p.expert_offset_L1[expert] +
                    before[static_cast<int64_t>(blockIdx.x) * p.num_local_experts + expert] + rank;
    p.row_of_choice_TK[choice] = row;
    p.weight_of_row_R[row] = p.weight_TK[choice];
  }
}

constexpr int kRowThreads = 256;
constexpr int kRowBlocks = kMultiprocessors * 8;

// One warp a (token, chunk of columns): it is read once and written to all of its rows.
__global__ void __launch_bounds__(kRowThreads) ScatterKernel(ScatterRowsParams p) {
  constexpr int kUnroll = 4;
  const int vectors = p.hidden / kVec, lane = threadIdx.x % 32;
  const int chunks = (vectors + 32 * kUnroll - 1) / (32 * kUnroll);
  const int64_t units = p.num_tokens * chunks;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kRowThreads / 32);
  for (int64_t unit = static_cast<int64_t>(blockIdx.x) * (kRowThreads / 32) + threadIdx.x / 32;
       unit < units; unit += warps) {
    const int64_t token = unit / chunks;
    const int first = static_cast<int>(unit % chunks) * 32 * kUnroll + lane;
    const int32_t row = lane < p.top_k ? p.row_of_choice_TK[token * p.top_k + lane] : -1;
    const uint4* from = reinterpret_cast<const uint4*>(p.x_TD + token * p.hidden);
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (first + 32 * u < vectors) v[u] = __ldg(from + first + 32 * u);
    }
    for (uint32_t choices = __ballot_sync(~0u, row >= 0); choices != 0; choices &= choices - 1) {
      const int64_t to_row = __shfl_sync(~0u, row, __ffs(choices) - 1);
      uint4* to = reinterpret_cast<uint4*>(p.rows_RD + to_row * p.hidden);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (first + 32 * u < vectors) __stcs(to + first + 32 * u, v[u]);
      }
    }
  }
}

__global__ void __launch_bounds__(kRowThreads) CombineKernel(CombineRowsParams p) {
  const int64_t vectors = p.hidden / kVec;
  const int64_t total = p.num_tokens * vectors;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kRowThreads;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kRowThreads + threadIdx.x; at < total;
       at += stride) {
    const int64_t token = at / vectors, column = (at - token * vectors) * kVec;
    float sum[kVec] = {};
    if (p.residual_TD != nullptr) Load8(p.residual_TD + token * p.hidden + column, sum);
#pragma unroll 8
    for (int k = 0; k < p.top_k; ++k) {
      const int32_t row = p.row_of_choice_TK[token * p.top_k + k];
      if (row < 0) continue;
      float v[kVec];
      Load8(p.rows_RD + static_cast<int64_t>(row) * p.hidden + column, v);
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum[j] += v[j];
    }
    Store8(p.y_TD + token * p.hidden + column, sum);
  }
}

__global__ void GatherChoicesKernel(GatherChoicesParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.num_choices) return;
  const int32_t row = p.row_of_choice_TK[i];
  p.out_TK[i] = row < 0 ? 0.0f : p.value_R[row];
}

int NumChunks(int64_t num_tokens) { return static_cast<int>((num_tokens + kChunk - 1) / kChunk); }

}  // namespace

int64_t RoutingWorkspaceBytes(const RoutingParams& p) {
  return static_cast<int64_t>(NumChunks(p.num_tokens)) * p.num_local_experts * sizeof(int32_t);
}

cudaError_t BuildRouting(const RoutingParams& p, void* workspace, cudaStream_t stream) {
  if (p.num_tokens < 0 || p.num_local_experts <= 0 || p.num_local_experts > kMaxExperts ||
      p.top_k <= 0 || p.top_k > 32) {
    return cudaErrorInvalidValue;
  }
  int32_t* counts = static_cast<int32_t*>(workspace);
  const int chunks = NumChunks(p.num_tokens);
  if (chunks > 0) CountKernel<<<chunks, 256, 0, stream>>>(p, counts);
  ScanKernel<<<1, kMaxExperts, 0, stream>>>(p, counts, chunks);
  if (chunks > 0) AssignKernel<<<chunks, 256, 0, stream>>>(p, counts);
  return cudaGetLastError();
}

cudaError_t ScatterRows(const ScatterRowsParams& p, cudaStream_t stream) {
  if (p.hidden <= 0 || p.hidden % kVec != 0 || p.num_tokens < 0 || p.top_k <= 0 || p.top_k > 32) {
    return cudaErrorInvalidValue;
  }
  if (p.num_tokens == 0) return cudaSuccess;
  ScatterKernel<<<kRowBlocks, kRowThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

cudaError_t GatherChoices(const GatherChoicesParams& p, cudaStream_t stream) {
  if (p.num_choices < 0) return cudaErrorInvalidValue;
  if (p.num_choices == 0) return cudaSuccess;
  GatherChoicesKernel<<<(p.num_choices + 255) / 256, 256, 0, stream>>>(p);
  return cudaGetLastError();
}

cudaError_t CombineRows(const CombineRowsParams& p, cudaStream_t stream) {
  if (p.hidden <= 0 || p.hidden % kVec != 0 || p.num_tokens < 0 || p.top_k <= 0 || p.top_k > 32) {
    return cudaErrorInvalidValue;
  }
  if (p.num_tokens == 0) return cudaSuccess;
  CombineKernel<<<kRowBlocks, kRowThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
