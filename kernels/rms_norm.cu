#include <algorithm>

#include "kernels/device/dependent_launch.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/rms_norm.h"

namespace switchyard::kernels {
namespace {

constexpr int kMaxVectorsPerThread = 2;
constexpr int kMaxThreads = 512;
static_assert(kMaxRmsNormHidden == kMaxThreads * kMaxVectorsPerThread * kVec);
constexpr int kBackwardBlocks =
    528;  // four a multiprocessor; the rows of a block are summed in registers

// One block a token; each thread keeps its part of the row in registers between the two passes.
__global__ void __launch_bounds__(kMaxThreads) RmsNormForwardKernel(RmsNormForwardParams p) {
  WaitForPrevious();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * p.hidden;
  const int vectors = p.hidden / kVec;
  float v[kMaxVectorsPerThread][kVec];
  float square = 0.0f;
#pragma unroll
  for (int i = 0; i < kMaxVectorsPerThread; ++i) {
    const int vector = threadIdx.x + i * blockDim.x;
    if (vector >= vectors) continue;
    Load8(p.x_TD + row + vector * kVec, v[i]);
#pragma unroll
    for (int j = 0; j < kVec; ++j) square += v[i][j] * v[i][j];
  }
  const float rstd = rsqrtf(BlockSum(square) / p.hidden + p.eps);
#pragma unroll
  for (int i = 0; i < kMaxVectorsPerThread; ++i) {
    const int vector = threadIdx.x + i * blockDim.x;
    if (vector >= vectors) continue;
    float gamma[kVec];
    Load8(p.gamma_D + vector * kVec, gamma);
#pragma unroll
    for (int j = 0; j < kVec; ++j) v[i][j] *= rstd * gamma[j];
    Store8(p.y_TD + row + vector * kVec, v[i]);
  }
}

// Block b takes tokens b, b + gridDim.x, ...; its sum for dgamma goes to row b of `partial`. All of
// a row's loads are issued before the reduction, which would otherwise stand between them.
template <int kVectors>
__global__ void __launch_bounds__(kMaxThreads)
    RmsNormBackwardKernel(RmsNormBackwardParams p, float* partial) {
  WaitForPrevious();
  const int vectors = p.hidden / kVec;
  const bool has_residual = p.residual_gradient_TD != nullptr;
  float gamma[kVectors][kVec] = {}, grad_gamma[kVectors][kVec] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int vector = threadIdx.x + i * blockDim.x;
    if (vector < vectors) Load8(p.gamma_D + vector * kVec, gamma[i]);
  }
  for (int64_t token = blockIdx.x; token < p.num_tokens; token += gridDim.x) {
    const int64_t row = token * p.hidden;
    float n[kVectors][kVec] = {}, g[kVectors][kVec] = {}, residual[kVectors][kVec] = {};
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int vector = threadIdx.x + i * blockDim.x;
      if (vector >= vectors) continue;
      Load8(p.x_TD + row + vector * kVec, n[i]);
      Load8(p.grad_y_TD + row + vector * kVec, g[i]);
      if (has_residual) Load8(p.residual_gradient_TD + row + vector * kVec, residual[i]);
    }
    float2 sums = {0.0f, 0.0f};  // of x^2 and of dy gamma x
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        sums.x += n[i][j] * n[i][j];
        sums.y += g[i][j] * gamma[i][j] * n[i][j];
      }
    }
    sums = BlockSum(sums);
    const float rstd = rsqrtf(sums.x / p.hidden + p.eps);
    const float mean = sums.y * rstd / p.hidden;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        n[i][j] *= rstd;
        grad_gamma[i][j] += g[i][j] * n[i][j];
        g[i][j] *= gamma[i][j];
      }
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int vector = threadIdx.x + i * blockDim.x;
      if (vector >= vectors) continue;
#pragma unroll
      for (int j = 0; j < kVec; ++j) g[i][j] = rstd * (g[i][j] - n[i][j] * mean) + residual[i][j];
      Store8(p.grad_x_TD + row + vector * kVec, g[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int vector = threadIdx.x + i * blockDim.x;
    if (vector >= vectors) continue;
    Store8(partial + static_cast<int64_t>(blockIdx.x) * p.hidden + vector * kVec, grad_gamma[i]);
  }
}

__global__ void SumRowsKernel(const float* partial, int rows, int columns, nv_bfloat16* out) {
  WaitForPrevious();
  float sum;
  const int column = SumColumn(partial, rows, columns, sum);
  if (column >= 0) out[column] = __float2bfloat16_rn(sum);
}

bool Valid(int32_t hidden, int64_t num_tokens) {
  return hidden > 0 && hidden % kVec == 0 && hidden <= kMaxRmsNormHidden && num_tokens >= 0;
}

// Threads so that each holds one or two vectors.
int Threads(int32_t hidden) {
  const int vectors = hidden / kVec;
  const int per_thread = vectors > 128 ? kMaxVectorsPerThread : 1;
  return std::min(kMaxThreads, ((vectors + per_thread - 1) / per_thread + 31) / 32 * 32);
}

}  // namespace

cudaError_t RmsNormForward(const RmsNormForwardParams& p, cudaStream_t stream) {
  if (!Valid(p.hidden, p.num_tokens)) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  return LaunchBehind(RmsNormForwardKernel, dim3(p.num_tokens), dim3(Threads(p.hidden)), 0, stream,
                      p);
}

int64_t RmsNormBackwardWorkspaceBytes(int32_t hidden) {
  return static_cast<int64_t>(kBackwardBlocks) * hidden * sizeof(float);
}

cudaError_t RmsNormBackward(const RmsNormBackwardParams& p, void* workspace, cudaStream_t stream) {
  if (!Valid(p.hidden, p.num_tokens)) return cudaErrorInvalidValue;
  float* partial = static_cast<float*>(workspace);
  const int vectors = p.hidden / kVec;
  const bool one = vectors <= kMaxThreads;  // vector a thread
  const cudaError_t error =
      LaunchBehind(one ? RmsNormBackwardKernel<1> : RmsNormBackwardKernel<2>, dim3(kBackwardBlocks),
                   dim3(one ? (vectors + 31) / 32 * 32 : kMaxThreads), 0, stream, p, partial);
  if (error != cudaSuccess) return error;
  return LaunchBehind(SumRowsKernel, dim3((p.hidden + 31) / 32), dim3(kSumColumnThreads), 0, stream,
                      partial, kBackwardBlocks, p.hidden, p.grad_gamma_D);
}

}  // namespace switchyard::kernels
