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

// Sum over the block; every thread gets it. blockDim.x a multiple of 32, at most 1024. Call again
// only after all threads have used the result of the call before: it begins with a barrier.
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

// Two sums at once.
__device__ __forceinline__ float2 BlockSum(float2 v) {
  __shared__ float2 partial[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  v = {WarpSum(v.x), WarpSum(v.y)};
  __syncthreads();
  if (lane == 0) partial[warp] = v;
  __syncthreads();
  v = lane < static_cast<int>(blockDim.x / 32) ? partial[lane] : float2{0.0f, 0.0f};
  return {WarpSum(v.x), WarpSum(v.y)};
}

__device__ __forceinline__ float BlockMax(float v) {
  __shared__ float partial[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  v = WarpMax(v);
  __syncthreads();
  if (lane == 0) partial[warp] = v;
  __syncthreads();
  v = lane < static_cast<int>(blockDim.x / 32) ? partial[lane] : -INFINITY;
  return WarpMax(v);
}

// Sums column `32 * blockIdx.x + warp` of partial [rows, columns] in a fixed order, with coalesced
// reads. Launch with kSumColumnThreads threads. Returns the column in the one lane that has its
// sum, else -1.
inline constexpr int kSumColumnThreads = 1024;
__device__ __forceinline__ int SumColumn(const float* partial, int rows, int columns, float& sum) {
  __shared__ float tile[32][33];
  const int lane = threadIdx.x % 32, group = threadIdx.x / 32;
  const int column = blockIdx.x * 32 + lane;
  sum = 0.0f;
  if (column < columns) {
#pragma unroll 8
    for (int row = group; row < rows; row += 32)
      sum += partial[static_cast<int64_t>(row) * columns + column];
  }
  tile[group][lane] = sum;
  __syncthreads();
  sum = WarpSum(tile[lane][group]);
  const int out = blockIdx.x * 32 + group;
  return lane == 0 && out < columns ? out : -1;
}

}  // namespace switchyard::kernels
