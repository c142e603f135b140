#include "kernels/device/grid.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/sum_of_squares.h"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kBlocks = kMultiprocessors * 4;
constexpr int kUnroll = 4;  // independent loads in flight

__device__ double BlockSumDouble(double v) {
  __shared__ double partial[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(~0u, v, offset);
  if (lane == 0) partial[warp] = v;
  __syncthreads();
  v = lane < static_cast<int>(blockDim.x / 32) ? partial[lane] : 0.0;
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(~0u, v, offset);
  return v;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    PartialKernel(const T* x, int64_t numel, double* partial) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * kVec;
  double total = 0.0;
  for (int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kVec; at < numel;
       at += stride * kUnroll) {
    float v[kUnroll][kVec] = {};
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (at + u * stride < numel) Load8(x + at + u * stride, v[u]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum += v[u][j] * v[u][j];
    }
    total += sum;
  }
  total = BlockSumDouble(total);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

__global__ void FinishKernel(const double* partial, double* sum, bool accumulate) {
  double v = 0.0;
  for (int i = threadIdx.x; i < kBlocks; i += blockDim.x) v += partial[i];
  v = BlockSumDouble(v);
  if (threadIdx.x == 0) *sum = accumulate ? *sum + v : v;
}

}  // namespace

int64_t SumOfSquaresWorkspaceBytes() { return kBlocks * sizeof(double); }

cudaError_t SumOfSquares(const SumOfSquaresParams& p, void* workspace, cudaStream_t stream) {
  if (p.numel < 0 || p.numel % kVec != 0 || (p.x != nullptr) == (p.x_float32 != nullptr)) {
    return cudaErrorInvalidValue;
  }
  double* partial = static_cast<double*>(workspace);
  if (p.x != nullptr) {
    PartialKernel<<<kBlocks, kThreads, 0, stream>>>(p.x, p.numel, partial);
  } else {
    PartialKernel<<<kBlocks, kThreads, 0, stream>>>(p.x_float32, p.numel, partial);
  }
  FinishKernel<<<1, 256, 0, stream>>>(partial, p.sum, p.accumulate);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
