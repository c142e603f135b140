#include "kernels/cross_entropy.h"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"

namespace switchyard::kernels {
namespace {

// One block a multiprocessor holds a whole row on the chip between the two passes: 96 KB in
// registers, 204 KB in shared memory; together V = 153,600. What is longer is read again, from L2
// while that holds.
constexpr int kThreads = 1024;
constexpr int kRegisterVectors = 6;  // of each thread
constexpr int kSharedVectors = 13'056;
constexpr int kSharedBytes = kSharedVectors * 16;
constexpr int kUnroll = 4;  // loads in flight past the registers

// Running maximum and sum of exponentials of one thread.
struct OnlineSoftmax {
  float maximum = -INFINITY;
  float sum = 0.0f;

  __device__ __forceinline__ void Add(const uint4& raw) {
    float x[kVec];
    Unpack8(raw, x);
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
};

__device__ __forceinline__ void StoreGradient(uint4* to, const uint4& raw, float maximum,
                                              float scale) {
  float x[kVec];
  Unpack8(raw, x);
#pragma unroll
  for (int j = 0; j < kVec; ++j) x[j] = __expf(x[j] - maximum) * scale;
  Store8(reinterpret_cast<nv_bfloat16*>(to), x);
}

__global__ void __launch_bounds__(kThreads, 1) CrossEntropyKernel(CrossEntropyParams p) {
  extern __shared__ uint4 shared[];
  nv_bfloat16* logits = p.logits_TV + static_cast<int64_t>(blockIdx.x) * p.vocab;
  uint4* row = reinterpret_cast<uint4*>(logits);
  const int vectors = p.vocab / kVec, thread = threadIdx.x;
  const int64_t target = p.target_T[blockIdx.x];
  if (target < 0) {
    for (int v = thread; v < vectors; v += kThreads) row[v] = make_uint4(0, 0, 0, 0);
    if (thread == 0) p.loss_T[blockIdx.x] = 0.0f;
    return;
  }
  const float target_logit = __bfloat162float(logits[target]);

  OnlineSoftmax softmax;
  uint4 held[kRegisterVectors];
#pragma unroll
  for (int i = 0; i < kRegisterVectors; ++i) {
    if (thread + i * kThreads < vectors) held[i] = row[thread + i * kThreads];
  }
#pragma unroll
  for (int i = 0; i < kRegisterVectors; ++i) {
    if (thread + i * kThreads < vectors) softmax.Add(held[i]);
  }
  constexpr int kFirstShared = kRegisterVectors * kThreads;
  for (int first = kFirstShared + thread; first < vectors; first += kThreads * kUnroll) {
    uint4 raw[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (first + u * kThreads < vectors) raw[u] = row[first + u * kThreads];
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int v = first + u * kThreads;
      if (v >= vectors) continue;
      if (v - kFirstShared < kSharedVectors) shared[v - kFirstShared] = raw[u];
      softmax.Add(raw[u]);
    }
  }

  const float maximum = BlockMax(softmax.maximum);
  const float sum = BlockSum(softmax.sum * __expf(softmax.maximum - maximum));
  if (thread == 0) p.loss_T[blockIdx.x] = maximum + __logf(sum) - target_logit;
  const float scale = p.scale / sum;
#pragma unroll
  for (int i = 0; i < kRegisterVectors; ++i) {
    const int v = thread + i * kThreads;
    if (v < vectors) StoreGradient(row + v, held[i], maximum, scale);
  }
  for (int v = kFirstShared + thread; v < vectors; v += kThreads) {
    const uint4 raw = v - kFirstShared < kSharedVectors ? shared[v - kFirstShared] : row[v];
    StoreGradient(row + v, raw, maximum, scale);
  }
  // The target's element again, by the thread that wrote it, so that no element pays for a
  // comparison.
  if (thread == static_cast<int>(target / kVec) % kThreads) {
    logits[target] = __float2bfloat16_rn(__expf(target_logit - maximum) * scale - p.scale);
  }
}

}  // namespace

cudaError_t CrossEntropyInPlace(const CrossEntropyParams& p, cudaStream_t stream) {
  if (p.num_tokens < 0 || p.vocab <= 0 || p.vocab % kVec != 0) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  const cudaError_t error = cudaFuncSetAttribute(
      CrossEntropyKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  CrossEntropyKernel<<<p.num_tokens, kThreads, kSharedBytes, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
