#include <cuda_pipeline_primitives.h>

#include <algorithm>
#include <cfloat>

#include "kernels/cross_entropy.h"
#include "kernels/device/grid.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"

namespace switchyard::kernels {
namespace {

// A block has a multiprocessor to itself and walks over rows. Between its two passes a row stays on
// the chip, in slots of one vector a thread: 80 KB in registers, 224 KB in shared memory; together
// V = 155,648. What is longer is read again, from L2 while that holds. One sweep over the slots
// writes the gradient of a row and fills what becomes free with the next row, whose maximum and sum
// follow a few slots behind: reading, writing and arithmetic overlap. A thread has its own places
// in each slot and waits for its own copies alone.
constexpr int kThreads = 1024;
constexpr int kRegisterSlots = 5;
constexpr int kSharedSlots = 14;
constexpr int kSlots = kRegisterSlots + kSharedSlots;
constexpr int kSharedBytes = kSharedSlots * kThreads * 16;
constexpr int kLag = 3;                 // slots between a copy to shared memory and its use
constexpr int kUnroll = 4;              // loads in flight past the slots
constexpr int kPrefetchVectors = 4096;  // of the row after the next, for the time of a reduction
constexpr float kLog2E = 1.44269504f, kLn2 = 0.693147181f;

// 2^x; results below the smallest normal number are 0.
__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Running maximum of one thread, times log2(e), and sum of exponentials relative to it.
struct OnlineSoftmax {
  float maximum = -FLT_MAX;
  float sum = 0.0f;

  __device__ __forceinline__ void Add(const uint4& raw) {
    const auto* pair = reinterpret_cast<const nv_bfloat162*>(&raw);
    const nv_bfloat162 most = __hmax2(__hmax2(pair[0], pair[1]), __hmax2(pair[2], pair[3]));
    const float local = kLog2E * fmaxf(__low2float(most), __high2float(most));
    if (local > maximum) {
      sum *= Exp2(maximum - local);
      maximum = local;
    }
    float x[kVec];
    Unpack8(raw, x);
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum += Exp2(fmaf(x[j], kLog2E, -maximum));
  }

  // Over the block; every thread gets it. `partial` must not be that of the call before.
  __device__ __forceinline__ void Reduce(float2 (&partial)[kThreads / 32]) {
    static_assert(kThreads / 32 == 32);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float most = WarpMax(maximum);
    const float total = WarpSum(sum * Exp2(maximum - most));
    if (lane == 0) partial[warp] = {most, total};
    __syncthreads();
    const float2 of_warp = partial[lane];
    maximum = WarpMax(of_warp.x);
    sum = WarpSum(of_warp.y * Exp2(of_warp.x - maximum));
  }
};

// A row on its way through the chip.
struct Row {
  int64_t index;  // none if >= num_tokens
  int32_t target;
  float target_logit;
};

__device__ __forceinline__ uint4* At(const CrossEntropyParams& p, int64_t index) {
  return reinterpret_cast<uint4*>(p.logits_TV + index * p.vocab);
}

__device__ __forceinline__ int32_t Target(const CrossEntropyParams& p, int64_t index) {
  return index < p.num_tokens ? static_cast<int32_t>(max(p.target_T[index], int64_t{-1})) : -1;
}

// The first row from `index` on, in steps of the grid, that has a target. The rows before it get
// their zeros.
__device__ __forceinline__ Row Next(const CrossEntropyParams& p, int64_t index, int32_t target) {
  while (index < p.num_tokens && target < 0) {
    uint4* const row = At(p, index);
    for (int v = threadIdx.x; v < p.vocab / kVec; v += kThreads) row[v] = make_uint4(0, 0, 0, 0);
    if (threadIdx.x == 0) p.loss_T[index] = 0.0f;
    index += gridDim.x;
    target = Target(p, index);
  }
  Row row{index, target, 0.0f};
  if (index < p.num_tokens) {
    row.target_logit = __bfloat162float(p.logits_TV[index * p.vocab + target]);
  }
  return row;
}

__device__ __forceinline__ void PrefetchToL2(const void* from, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(from)),
               "r"(bytes)
               : "memory");
}

// What the second pass needs of a row.
struct Gradient {
  uint4* row = nullptr;
  float maximum;  // times log2(e)
  float scale;
  int32_t target;
  nv_bfloat16 of_target;

  __device__ __forceinline__ void Store(int v, const uint4& raw) const {
    float x[kVec];
    Unpack8(raw, x);
#pragma unroll
    for (int j = 0; j < kVec; ++j) x[j] = Exp2(fmaf(x[j], kLog2E, -maximum)) * scale;
    Store8(reinterpret_cast<nv_bfloat16*>(row + v), x);
  }
};

__global__ void __launch_bounds__(kThreads, 1) CrossEntropyKernel(CrossEntropyParams p) {
  extern __shared__ uint4 shared[];  // [kSharedSlots, kThreads]
  __shared__ float2 partial[2][kThreads / 32];
  uint4* const mine = shared + threadIdx.x;
  const int vectors = p.vocab / kVec, thread = threadIdx.x;
  const int beyond_registers = (vectors + kThreads - 1) / kThreads - kRegisterSlots;
  const int shared_slots = min(max(beyond_registers, 0), kSharedSlots);
  uint4 held[kRegisterSlots];
  Gradient gradient;
  Row row = Next(p, blockIdx.x, Target(p, blockIdx.x));
  for (int parity = 0;; parity ^= 1) {
    const bool write = gradient.row != nullptr, read = row.index < p.num_tokens;
    const uint4* const from = At(p, row.index);
    const int32_t later_target = Target(p, row.index + gridDim.x);  // here, to be known in time
    Row later{};
    OnlineSoftmax softmax;
#pragma unroll
    for (int i = 0; i < kRegisterSlots; ++i) {
      const int v = thread + i * kThreads;
      if (v >= vectors) continue;
      if (write) gradient.Store(v, held[i]);
      if (read) held[i] = from[v];
    }
    for (int s = 0; s < shared_slots + kLag; ++s) {
      const int v = thread + (kRegisterSlots + s) * kThreads;
      if (s < shared_slots && v < vectors) {
        if (write) gradient.Store(v, mine[s * kThreads]);
        if (read) __pipeline_memcpy_async(mine + s * kThreads, from + v, sizeof(uint4));
      }
      __pipeline_commit();
      if (!read) continue;
      if (s == shared_slots) {
        later = Next(p, row.index + gridDim.x, later_target);
        if (thread == 0 && later.index < p.num_tokens) {
          PrefetchToL2(At(p, later.index), min(kPrefetchVectors, vectors) * 16);
        }
      }
      if (s == kLag - 1) {
#pragma unroll
        for (int i = 0; i < kRegisterSlots; ++i) {
          if (thread + i * kThreads < vectors) softmax.Add(held[i]);
        }
      }
      if (s >= kLag) {
        __pipeline_wait_prior(kLag);
        if (v - kLag * kThreads < vectors) softmax.Add(mine[(s - kLag) * kThreads]);
      }
    }
    for (int first = thread + kSlots * kThreads; first < vectors; first += kThreads * kUnroll) {
      uint4 raw[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (write && first + u * kThreads < vectors) raw[u] = gradient.row[first + u * kThreads];
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (write && first + u * kThreads < vectors) gradient.Store(first + u * kThreads, raw[u]);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (read && first + u * kThreads < vectors) raw[u] = from[first + u * kThreads];
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (read && first + u * kThreads < vectors) softmax.Add(raw[u]);
      }
    }
    // The target's element again, by the thread that wrote it, so that no element pays for a
    // comparison.
    if (write && thread == gradient.target / kVec % kThreads) {
      reinterpret_cast<nv_bfloat16*>(gradient.row)[gradient.target] = gradient.of_target;
    }
    if (!read) return;

    softmax.Reduce(partial[parity]);
    if (thread == 0) {
      p.loss_T[row.index] = softmax.maximum * kLn2 + __logf(softmax.sum) - row.target_logit;
    }
    gradient.row = At(p, row.index);
    gradient.maximum = softmax.maximum;
    gradient.scale = p.scale / softmax.sum;
    gradient.target = row.target;
    gradient.of_target = __float2bfloat16_rn(
        Exp2(fmaf(row.target_logit, kLog2E, -softmax.maximum)) * gradient.scale - p.scale);
    row = later;
  }
}

}  // namespace

cudaError_t CrossEntropyInPlace(const CrossEntropyParams& p, cudaStream_t stream) {
  if (p.num_tokens < 0 || p.vocab <= 0 || p.vocab % kVec != 0) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  const cudaError_t error = cudaFuncSetAttribute(
      CrossEntropyKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes);
  if (error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(p.num_tokens, kMultiprocessors));
  CrossEntropyKernel<<<blocks, kThreads, kSharedBytes, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
