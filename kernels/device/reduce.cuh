// Sums and maxima over lanes and blocks, in a fixed order: deterministic.
#pragma once

#include <cstdint>

namespace switchyard::kernels {

// Sum over groups of `kWidth` neighbouring lanes; every lane of the group gets it.
template <int kWidth = 32>
__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int offset = kWidth / 2; offset > 0; offset /= 2)
    v += __shfl_xor_sync(~0u, v, offset, kWidth);
  return v;
}

__device__ __forceinline__ float WarpMax(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, offset));
  return v;
}

// Sum over the block; every thread gets it. blockDim.x a multiple of 32, at most 1024. May be
// called again at once: it begins with a barrier.
__device__ __forceinline__ float BlockSum(float v) {
  __shared__ float partial[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  v = WarpSum(v);
  __syncthreads();
  if (lane == 0) partial[warp] = v;
  __syncthreads();
  v = lane < static_cast<int>(blockDim.x / 32) ? partial[lane] : 0.0f;
  return WarpSum(v);
}

// Sums kSumColumns columns of partial [rows, columns] a block, in a fixed order; columns a multiple
// of kSumColumns. The loads of 512 rows are in flight at once: the sum takes little more than one
// latency. Launch columns / kSumColumns blocks of kSumColumnThreads. Returns the column in the one
// thread that has its sum, else -1.
inline constexpr int kSumColumns = 8;  // a sector of each row
inline constexpr int kSumColumnThreads = 256;
__device__ __forceinline__ int SumColumn(const float* partial, int rows, int columns, float& sum) {
  constexpr int kPer = 4;  // columns of a thread: one 16-byte load
  constexpr int kAcross = kSumColumns / kPer, kRows = kSumColumnThreads / kAcross, kLoads = 4;
  alignas(16) __shared__ float tile[kSumColumnThreads / 32][kSumColumns];
  const int part = threadIdx.x % kAcross, first = threadIdx.x / kAcross;
  const float* from = partial + blockIdx.x * kSumColumns + part * kPer;
  float4 total = {};
  for (int row = first; row < rows; row += kRows * kLoads) {
    float4 v[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      v[i] = float4{};
      if (row + i * kRows < rows) {
        v[i] = *reinterpret_cast<const float4*>(from + (row + i * kRows) * columns);
      }
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      total.x += v[i].x, total.y += v[i].y, total.z += v[i].z, total.w += v[i].w;
    }
  }
#pragma unroll
  for (int offset = 16; offset >= kAcross; offset /= 2) {
    total.x += __shfl_xor_sync(~0u, total.x, offset);
    total.y += __shfl_xor_sync(~0u, total.y, offset);
    total.z += __shfl_xor_sync(~0u, total.z, offset);
    total.w += __shfl_xor_sync(~0u, total.w, offset);
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane < kAcross) *reinterpret_cast<float4*>(&tile[warp][lane * kPer]) = total;
  __syncthreads();
  if (threadIdx.x >= kSumColumns) return -1;
  sum = 0.0f;
#pragma unroll
  for (int w = 0; w < kSumColumnThreads / 32; ++w) sum += tile[w][threadIdx.x];
  return blockIdx.x * kSumColumns + threadIdx.x;
}

}  // namespace switchyard::kernels
