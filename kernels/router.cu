#include "kernels/device/dependent_launch.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/router.h"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kForwardBlocks = 264;
constexpr int kMaxPerLane = kMaxRouterExperts / 32;

// Softmax of one token's logits; lane l holds experts l, l + 32, ...; beyond the last one 0.
template <int kPerLane>
__device__ __forceinline__ void Softmax(const nv_bfloat16* logits, int lane, int num_experts,
                                        float (&p)[kPerLane]) {
  float maximum = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    p[i] = lane + 32 * i < num_experts ? __bfloat162float(logits[lane + 32 * i]) : -INFINITY;
    maximum = fmaxf(maximum, p[i]);
  }
  maximum = WarpMax(maximum);
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    p[i] = __expf(p[i] - maximum);
    sum += p[i];
  }
  const float scale = 1.0f / WarpSum(sum);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) p[i] *= scale;
}

// One warp a token. Each round takes the largest remaining probability; positive floats order as
// integers, so probability and expert are packed into one key and reduced together.
template <int kPerLane>
__global__ void __launch_bounds__(kThreads) ForwardKernel(RouterForwardParams p, float* partial) {
  WaitForPrevious();
  __shared__ int32_t counts[kMaxRouterExperts];
  __shared__ float sums[kWarps][kPerLane * 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int e = threadIdx.x; e < p.num_experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  float sum[kPerLane] = {}, entropy = 0.0f;
  for (int64_t token = blockIdx.x * kWarps + warp; token < p.num_tokens;
       token += gridDim.x * kWarps) {
    if (p.valid_T != nullptr && !p.valid_T[token]) {
      if (lane < p.top_k) {
        p.expert_TK[token * p.top_k + lane] = -1;
        p.weight_TK[token * p.top_k + lane] = 0.0f;
      }
      continue;
    }
    float probability[kPerLane], remaining[kPerLane];
    Softmax<kPerLane>(p.logits_TE + token * p.num_experts, lane, p.num_experts, probability);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      sum[i] += probability[i];
      remaining[i] = lane + 32 * i < p.num_experts ? probability[i] : -1.0f;
      if (probability[i] > 0.0f) entropy -= probability[i] * __logf(probability[i]);
    }
    float chosen = 0.0f, total = 0.0f;
    int expert = 0;
    for (int k = 0; k < p.top_k; ++k) {
      uint64_t best = 0;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        // Larger key: larger probability, then smaller expert. Taken experts have probability -1.
        const uint64_t key = remaining[i] < 0.0f
                                 ? 0
                                 : (static_cast<uint64_t>(__float_as_uint(remaining[i])) << 32) |
                                       (0xffffffffu - static_cast<uint32_t>(lane + 32 * i));
        best = key > best ? key : best;
      }
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) {
        const uint64_t other = __shfl_xor_sync(~0u, best, offset);
        best = other > best ? other : best;
      }
      const int winner = static_cast<int>(0xffffffffu - static_cast<uint32_t>(best));
      const float value = __uint_as_float(static_cast<uint32_t>(best >> 32));
      total += value;
      if (lane == k) {
        chosen = value;
        expert = winner;
      }
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (lane + 32 * i == winner) remaining[i] = -1.0f;
      }
    }
    if (lane < p.top_k) {
      p.expert_TK[token * p.top_k + lane] = expert;
      p.weight_TK[token * p.top_k + lane] = RoundBf16(p.renormalise ? chosen / total : chosen);
      atomicAdd(&counts[expert], 1);
    }
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) sums[warp][lane + 32 * i] = sum[i];
  entropy = BlockSum(entropy);
  if (threadIdx.x == 0) partial[kForwardBlocks * p.num_experts + blockIdx.x] = entropy;
  for (int e = threadIdx.x; e < p.num_experts; e += kThreads) {
    if (counts[e] != 0) atomicAdd(&p.count_E[e], counts[e]);
    if (p.probability_sum_E == nullptr) continue;
    float block_sum = 0.0f;
    for (int w = 0; w < kWarps; ++w) block_sum += sums[w][e];
    partial[static_cast<int64_t>(blockIdx.x) * p.num_experts + e] = block_sum;
  }
}

// One warp an expert, and one the entropy.
__global__ void SumStatisticsKernel(const float* partial, int num_experts, float* probability_sum,
                                    float* entropy_sum) {
  WaitForPrevious();
  const int expert = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (expert > num_experts) return;
  const bool is_entropy = expert == num_experts;
  float sum = 0.0f;
  for (int b = lane; b < kForwardBlocks; b += 32) {
    sum +=
        is_entropy ? partial[kForwardBlocks * num_experts + b] : partial[b * num_experts + expert];
  }
  sum = WarpSum(sum);
  if (lane != 0) return;
  if (!is_entropy) {
    probability_sum[expert] = sum;
  } else if (entropy_sum != nullptr) {
    *entropy_sum = sum;
  }
}

template <int kPerLane>
__global__ void __launch_bounds__(kThreads) BackwardKernel(RouterBackwardParams p) {
  WaitForPrevious();
  const int lane = threadIdx.x % 32;
  for (int64_t token = blockIdx.x * kWarps + threadIdx.x / 32; token < p.num_tokens;
       token += gridDim.x * kWarps) {
    const bool valid = p.valid_T == nullptr || p.valid_T[token];
    float probability[kPerLane], grad[kPerLane] = {};
    Softmax<kPerLane>(p.logits_TE + token * p.num_experts, lane, p.num_experts, probability);
    const int expert = lane < p.top_k && valid ? p.expert_TK[token * p.top_k + lane] : -1;
    float grad_weight = lane < p.top_k ? p.grad_weight_TK[token * p.top_k + lane] : 0.0f;
    // Probability of this lane's choice, fetched from the lane that holds that expert.
    float chosen = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const float value = __shfl_sync(~0u, probability[i], expert & 31);
      if (expert >= 0 && expert / 32 == i) chosen = value;
    }
    if (p.renormalise) {
      const float total = WarpSum(expert >= 0 ? chosen : 0.0f);
      const float dot = WarpSum(grad_weight * chosen) / total;
      grad_weight = (grad_weight - dot) / total;
    }
    for (int k = 0; k < p.top_k; ++k) {
      const int to = __shfl_sync(~0u, expert, k);
      const float value = __shfl_sync(~0u, grad_weight, k);
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (lane + 32 * i == to) grad[i] = value;
      }
    }
    float dot = 0.0f;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (p.balance_gradient_E != nullptr && lane + 32 * i < p.num_experts)
        grad[i] += p.balance_gradient_E[lane + 32 * i];
      dot += grad[i] * probability[i];
    }
    dot = WarpSum(dot);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (lane + 32 * i >= p.num_experts) continue;
      p.grad_logits_TE[token * p.num_experts + lane + 32 * i] =
          __float2bfloat16_rn(valid ? probability[i] * (grad[i] - dot) : 0.0f);
    }
  }
}

bool Valid(int64_t num_tokens, int32_t num_experts, int32_t top_k) {
  return num_tokens >= 0 && num_experts > 0 && num_experts <= kMaxRouterExperts && top_k > 0 &&
         top_k <= kMaxTopK && top_k <= num_experts;
}

// Calls launch<kPerLane>() for the smallest compiled number of experts a lane that is enough.
template <typename Launch>
cudaError_t DispatchPerLane(int num_experts, Launch launch) {
  const int per_lane = (num_experts + 31) / 32;
  if (per_lane <= 1) return launch.template operator()<1>();
  if (per_lane <= 2) return launch.template operator()<2>();
  if (per_lane <= 4) return launch.template operator()<4>();
  if (per_lane <= 8) return launch.template operator()<8>();
  return launch.template operator()<kMaxPerLane>();
}

}  // namespace

int64_t RouterForwardWorkspaceBytes(int32_t num_experts) {
  return static_cast<int64_t>(kForwardBlocks) * (num_experts + 1) * sizeof(float);
}

cudaError_t RouterForward(const RouterForwardParams& p, void* workspace, cudaStream_t stream) {
  if (!Valid(p.num_tokens, p.num_experts, p.top_k)) return cudaErrorInvalidValue;
  float* partial = static_cast<float*>(workspace);
  const cudaError_t error = DispatchPerLane(p.num_experts, [&]<int kPerLane>() {
    return LaunchBehind(ForwardKernel<kPerLane>, dim3(kForwardBlocks), dim3(kThreads), 0, stream, p,
                        partial);
  });
  if (error != cudaSuccess || p.probability_sum_E == nullptr) return error;
  return LaunchBehind(SumStatisticsKernel, dim3((p.num_experts + 8) / 8), dim3(256), 0, stream,
                      partial, p.num_experts, p.probability_sum_E, p.entropy_sum);
}

cudaError_t RouterBackward(const RouterBackwardParams& p, cudaStream_t stream) {
  if (!Valid(p.num_tokens, p.num_experts, p.top_k)) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  return DispatchPerLane(p.num_experts, [&]<int kPerLane>() {
    return LaunchBehind(BackwardKernel<kPerLane>, dim3((p.num_tokens + kWarps - 1) / kWarps),
                        dim3(kThreads), 0, stream, p);
  });
}

}  // namespace switchyard::kernels
