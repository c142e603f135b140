#include "kernels/device/dependent_launch.cuh"
#include "kernels/device/grid.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/swiglu_math.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/swiglu.h"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 256;  // eight warps, one row each at a time
constexpr int kBlocks = kMultiprocessors * 8;
constexpr int kUnroll = 3;  // vectors of gate and up in flight a lane; F = 768 is one round

__global__ void __launch_bounds__(kThreads) SwigluForwardKernel(SwigluForwardParams p) {
  const int64_t rows = p.num_rows != nullptr ? *p.num_rows : p.max_rows;
  const int lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kThreads / 32);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
       row < rows; row += warps) {
    const nv_bfloat16* gate_up = p.gate_up_R2F + row * 2 * p.ffn;
    const float weight = p.weight_R != nullptr ? p.weight_R[row] : 1.0f;
    for (int first = lane * kVec; first < p.ffn; first += 32 * kVec * kUnroll) {
      float gate[kUnroll][kVec], up[kUnroll][kVec];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int at = first + u * 32 * kVec;
        if (at >= p.ffn) continue;
        Load8(gate_up + at, gate[u]);
        Load8(gate_up + p.ffn + at, up[u]);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        const int at = first + u * 32 * kVec;
        if (at >= p.ffn) continue;
#pragma unroll
        for (int j = 0; j < kVec; ++j) gate[u][j] = Swiglu(gate[u][j], up[u][j], weight);
        Store8(p.h_RF + row * p.ffn + at, gate[u]);
      }
    }
  }
}

__global__ void __launch_bounds__(kThreads) SwigluBackwardKernel(SwigluBackwardParams p) {
  WaitForPrevious();
  const int64_t rows = p.num_rows != nullptr ? *p.num_rows : p.max_rows;
  const int lane = threadIdx.x % 32;
  const int64_t warps = static_cast<int64_t>(gridDim.x) * (kThreads / 32);
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
       row < rows; row += warps) {
    const nv_bfloat16* gate_up = p.gate_up_R2F + row * 2 * p.ffn;
    nv_bfloat16* grad_gate_up = p.grad_gate_up_R2F + row * 2 * p.ffn;
    const float weight = p.weight_R != nullptr ? p.weight_R[row] : 1.0f;
    float dot = 0.0f;
    for (int at = lane * kVec; at < p.ffn; at += 32 * kVec) {
      float gate[kVec], up[kVec], grad[kVec], h[kVec];
      Load8(gate_up + at, gate);
      Load8(gate_up + p.ffn + at, up);
      Load8(p.grad_h_RF + row * p.ffn + at, grad);
#pragma unroll
      for (int j = 0; j < kVec; ++j) {
        const float sigmoid = Sigmoid(gate[j]);
        const float silu = gate[j] * sigmoid;
        const float activation = silu * up[j];
        dot += grad[j] * activation;
        h[j] = activation * weight;
        const float weighted = grad[j] * weight;
        const float silu_slope = sigmoid * (1.0f + gate[j] * (1.0f - sigmoid));
        gate[j] = weighted * up[j] * silu_slope;
        up[j] = weighted * silu;
      }
      Store8(grad_gate_up + at, gate);
      Store8(grad_gate_up + p.ffn + at, up);
      if (p.h_RF != nullptr) Store8(p.h_RF + row * p.ffn + at, h);
    }
    if (p.weight_R != nullptr) {
      dot = WarpSum(dot);
      if (lane == 0) p.grad_weight_R[row] = dot;
    }
  }
}

bool Valid(int64_t max_rows, int32_t ffn) { return max_rows >= 0 && ffn > 0 && ffn % kVec == 0; }

}  // namespace

cudaError_t SwigluForward(const SwigluForwardParams& p, cudaStream_t stream) {
  if (!Valid(p.max_rows, p.ffn)) return cudaErrorInvalidValue;
  if (p.max_rows == 0) return cudaSuccess;
  SwigluForwardKernel<<<kBlocks, kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

cudaError_t SwigluBackward(const SwigluBackwardParams& p, cudaStream_t stream) {
  if (!Valid(p.max_rows, p.ffn) || (p.weight_R != nullptr && p.grad_weight_R == nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (p.max_rows == 0) return cudaSuccess;
  return LaunchBehind(SwigluBackwardKernel, dim3(kBlocks), dim3(kThreads), 0, stream, p);
}

}  // namespace switchyard::kernels
