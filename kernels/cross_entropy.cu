#include "kernels/cross_entropy.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 1024;
// Vectors of a row that stay in shared memory between the two passes: 96 KB, so that two blocks fit.
constexpr int kCachedVectors = 6144;
constexpr int kSharedBytes = kCachedVectors * 16;

__global__ void __launch_bounds__(kThreads, 2) CrossEntropyKernel(CrossEntropyParams p) {
  extern __shared__ uint4 cache[];
  const int64_t row = blockIdx.x;
  nv_bfloat16* logits = p.logits_TV + row * p.vocab;
  const int vectors = p.vocab / kVec;
  const int64_t target = p.target_T[row];
  if (target < 0) {
    const float zero[kVec] = {};
    for (int v = threadIdx.x; v < vectors; v += kThreads) Store8(logits + v * kVec, zero);
    if (threadIdx.x == 0) p.loss_T[row] = 0.0f;
    return;
  }
  const float target_logit = __bfloat162float(logits[target]);
  // Online softmax: running maximum and sum of each thread.
  float maximum = -INFINITY, sum = 0.0f;
  for (int v = threadIdx.x; v < vectors; v += kThreads) {
    const uint4 raw = reinterpret_cast<const uint4*>(logits)[v];
    if (v < kCachedVectors) cache[v] = raw;
    float x[kVec];
    Load8(reinterpret_cast<const nv_bfloat16*>(&raw), x);
    float local = x[0];
#pragma unroll
    for (int j = 1; j < kVec; ++j) local = fmaxf(local, x[j]);
    if (local > maximum) {
      sum *= __expf(maximum - local);
      maximum = local;
    }
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum += __expf(x[j] - maximum);
  }
  const float row_maximum = BlockMax(maximum);
  const float row_sum = BlockSum(sum * __expf(maximum - row_maximum));
  const float log_sum = row_maximum + __logf(row_sum);
  if (threadIdx.x == 0) p.loss_T[row] = log_sum - target_logit;
  const float scale = p.scale / row_sum;
  for (int v = threadIdx.x; v < vectors; v += kThreads) {
    const uint4 raw = v < kCachedVectors ? cache[v] : reinterpret_cast<const uint4*>(logits)[v];
    float x[kVec];
    Load8(reinterpret_cast<const nv_bfloat16*>(&raw), x);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      x[j] = __expf(x[j] - row_maximum) * scale - (v * kVec + j == target ? p.scale : 0.0f);
    }
    Store8(logits + v * kVec, x);
  }
}

}  // namespace

cudaError_t CrossEntropyInPlace(const CrossEntropyParams& p, cudaStream_t stream) {
  if (p.num_tokens < 0 || p.vocab <= 0 || p.vocab % kVec != 0) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  const cudaError_t error = cudaFuncSetAttribute(CrossEntropyKernel,
                                                 cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  CrossEntropyKernel<<<p.num_tokens, kThreads, kSharedBytes, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
