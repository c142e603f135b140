#include <cuda_pipeline_primitives.h>

#include <algorithm>

#include "kernels/device/dependent_launch.cuh"
#include "kernels/device/grid.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/rms_norm.h"

namespace switchyard::kernels {
namespace {

constexpr int kMaxVectorsPerThread = 2;
constexpr int kMaxThreads = 512;
static_assert(kMaxRmsNormHidden == kMaxThreads * kMaxVectorsPerThread * kVec);

// Of the backward: a block a multiprocessor, several rows at once if they are short. Registers are
// left for the two small blocks that sum behind it, so that they wait in their places.
constexpr int kBackwardBlocks = kMultiprocessors;
constexpr int kMaxBackwardThreads = kMaxRmsNormHidden / kVec;
constexpr int kGroupsThreads = 768;
constexpr int kMaxGroups = 8;  // rows at once; each has a named barrier
constexpr int kStages = 3;     // rows of a group in shared memory
constexpr int kPieces = 3;     // x, dy, residual gradient
// The sums of dgamma fit where the rows were.
static_assert(kStages * kPieces * sizeof(uint4) >= kVec * sizeof(float));

// Waits for all threads of the group; barrier 0 is the block's.
__device__ __forceinline__ void GroupBarrier(int group, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(threads) : "memory");
}

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

// A row belongs to a group of `row_threads` threads, a vector a thread; group g of block b takes
// tokens b + gridDim.x * (g + k * groups). The rows to come are on their way to shared memory while
// this one is reduced: a thread copies for itself and waits for its own copies alone. The sums for
// dgamma of a block's groups go to row b of `partial`.
__global__ void __launch_bounds__(kMaxBackwardThreads, 1)
    RmsNormBackwardKernel(RmsNormBackwardParams p, int row_threads, float* partial) {
  extern __shared__ uint4 ring[];  // [kStages, kPieces, threads]; after the last row [groups, D]
  __shared__ float2 warp_sums[2][kMaxBackwardThreads / 32];
  WaitForPrevious();
  const int threads = blockDim.x, groups = threads / row_threads;
  const int group = threadIdx.x / row_threads, vector = threadIdx.x % row_threads;
  const int warps = row_threads / 32, lane = threadIdx.x % 32;
  const bool active = vector < p.hidden / kVec;
  const bool has_residual = p.residual_gradient_TD != nullptr;
  const int64_t step = static_cast<int64_t>(groups) * gridDim.x;
  const auto place = [&](int stage, int piece) {
    return ring + (stage * kPieces + piece) * threads + threadIdx.x;
  };
  const auto copy = [&](int64_t token, int stage) {
    if (active && token < p.num_tokens) {
      const int64_t at = token * p.hidden + vector * kVec;
      __pipeline_memcpy_async(place(stage, 0), p.x_TD + at, sizeof(uint4));
      __pipeline_memcpy_async(place(stage, 1), p.grad_y_TD + at, sizeof(uint4));
      if (has_residual)
        __pipeline_memcpy_async(place(stage, 2), p.residual_gradient_TD + at, sizeof(uint4));
    }
    __pipeline_commit();
  };

  int64_t token = blockIdx.x + static_cast<int64_t>(group) * gridDim.x;
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) copy(token + s * step, s);
  float gamma[kVec] = {}, grad_gamma[kVec] = {};
  if (active) Load8(p.gamma_D + vector * kVec, gamma);
  int stage = 0, parity = 0;
  for (; token < p.num_tokens; token += step) {
    copy(token + (kStages - 1) * step, stage == 0 ? kStages - 1 : stage - 1);
    __pipeline_wait_prior(kStages - 1);
    float2 sums = {0.0f, 0.0f};  // of x^2 and of dy gamma x
    if (active) {
      float x[kVec], g[kVec];
      Unpack8(*place(stage, 0), x);
      Unpack8(*place(stage, 1), g);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        sums.x += x[j] * x[j];
        sums.y += g[j] * gamma[j] * x[j];
      }
    }
    sums = {WarpSum(sums.x), WarpSum(sums.y)};
    if (lane == 0) warp_sums[parity][threadIdx.x / 32] = sums;
    GroupBarrier(group, row_threads);
    sums = lane < warps ? warp_sums[parity][group * warps + lane] : float2{0.0f, 0.0f};
    sums = {WarpSum(sums.x), WarpSum(sums.y)};
    const float rstd = rsqrtf(sums.x / p.hidden + p.eps);
    const float mean = sums.y * rstd / p.hidden;
    if (active) {  // from shared memory again: registers are scarcer
      float n[kVec], g[kVec], residual[kVec] = {};
      Unpack8(*place(stage, 0), n);
      Unpack8(*place(stage, 1), g);
      if (has_residual) Unpack8(*place(stage, 2), residual);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        n[j] *= rstd;
        grad_gamma[j] += g[j] * n[j];
        g[j] = rstd * (g[j] * gamma[j] - n[j] * mean) + residual[j];
      }
      Store8(p.grad_x_TD + token * p.hidden + vector * kVec, g);
    }
    stage = stage == kStages - 1 ? 0 : stage + 1;
    parity ^= 1;
  }

  float* const tile = reinterpret_cast<float*>(ring);
  __syncthreads();
  if (active) Store8(tile + group * p.hidden + vector * kVec, grad_gamma);
  __syncthreads();
  for (int column = threadIdx.x; column < p.hidden; column += threads) {
    float sum = 0.0f;
    for (int g = 0; g < groups; ++g) sum += tile[g * p.hidden + column];
    partial[static_cast<int64_t>(blockIdx.x) * p.hidden + column] = sum;
  }
}

__global__ void __launch_bounds__(kSumColumnThreads)
    SumRowsKernel(const float* partial, int rows, int columns, nv_bfloat16* out) {
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
  const int row_threads = (p.hidden / kVec + 31) / 32 * 32;
  const int threads = row_threads * std::clamp(kGroupsThreads / row_threads, 1, kMaxGroups);
  constexpr int kBytes = kStages * kPieces * sizeof(uint4);  // of a thread
  cudaError_t error =
      cudaFuncSetAttribute(RmsNormBackwardKernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kMaxBackwardThreads * kBytes);
  if (error != cudaSuccess) return error;
  error = LaunchBehind(RmsNormBackwardKernel, dim3(kBackwardBlocks), dim3(threads),
                       threads * kBytes, stream, p, row_threads, partial);
  if (error != cudaSuccess) return error;
  return LaunchBehind(SumRowsKernel, dim3(p.hidden / kSumColumns), dim3(kSumColumnThreads), 0,
                      stream, partial, kBackwardBlocks, p.hidden, p.grad_gamma_D);
}

}  // namespace switchyard::kernels
