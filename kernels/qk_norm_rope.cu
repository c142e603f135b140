#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/qk_norm_rope.h"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 132 * 6;

// C / 8 lanes hold a head: lane l has elements 4l .. 4l+3 of each half, so that a rotation stays in a lane.
template <int kHeadDim>
struct HeadLayout {
  static constexpr int kLanes = kHeadDim / 8;
  static constexpr int kHeadsPerBlock = kThreads / kLanes;
  static constexpr int kHalf = kHeadDim / 2;
};

template <int kHeadDim>
__device__ __forceinline__ void LoadHead(const nv_bfloat16* head, int lane, float (&low)[4],
                                         float (&high)[4]) {
  Load4(head + lane * 4, low);
  Load4(head + HeadLayout<kHeadDim>::kHalf + lane * 4, high);
}

template <int kHeadDim>
__device__ __forceinline__ float Rstd(const float (&low)[4], const float (&high)[4], float eps) {
  float square = 0.0f;
#pragma unroll
  for (int j = 0; j < 4; ++j) square += low[j] * low[j] + high[j] * high[j];
  return rsqrtf(WarpSum<HeadLayout<kHeadDim>::kLanes>(square) / kHeadDim + eps);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads) ForwardKernel(QkNormRopeForwardParams p) {
  using Layout = HeadLayout<kHeadDim>;
  const int lane = threadIdx.x % Layout::kLanes;
  const int heads = p.num_heads + p.num_kv_heads;
  const int64_t total = p.num_tokens * heads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * Layout::kHeadsPerBlock;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * Layout::kHeadsPerBlock;
  // Every lane takes part in the shuffles of its warp, so all run the same number of rounds.
  for (int64_t base = first; base < total; base += stride) {
    const int64_t index = base + threadIdx.x / Layout::kLanes;
    const bool active = index < total;
    const int64_t token = active ? index / heads : 0;
    const int head = active ? static_cast<int>(index % heads) : 0;
    float low[4], high[4];
    LoadHead<kHeadDim>(p.qkv_T + (token * (heads + p.num_kv_heads) + head) * kHeadDim, lane, low, high);
    const float rstd = Rstd<kHeadDim>(low, high, p.eps);
    if (!active) continue;
    const nv_bfloat16* gamma = head < p.num_heads ? p.q_gamma_C : p.k_gamma_C;
    float gamma_low[4], gamma_high[4];
    LoadHead<kHeadDim>(gamma, lane, gamma_low, gamma_high);
    const float2* table = p.rope_table + static_cast<int64_t>(p.position_T[token]) * Layout::kHalf + lane * 4;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 angle = table[j];
      const float a = low[j] * rstd * gamma_low[j];
      const float b = high[j] * rstd * gamma_high[j];
      low[j] = a * angle.x - b * angle.y;
      high[j] = b * angle.x + a * angle.y;
    }
    nv_bfloat16* out = p.qk_T + index * kHeadDim;
    Store4(out + lane * 4, low);
    Store4(out + Layout::kHalf + lane * 4, high);
  }
}

// Sums of dgamma: row 2b of `partial` has block b's query part, row 2b + 1 its key part.
template <int kHeadDim>
__global__ void __launch_bounds__(kThreads) BackwardKernel(QkNormRopeBackwardParams p, float* partial) {
  using Layout = HeadLayout<kHeadDim>;
  const int lane = threadIdx.x % Layout::kLanes;
  const int group = threadIdx.x / Layout::kLanes;
  const int heads = p.num_heads + p.num_kv_heads;
  const int64_t total = p.num_tokens * heads;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * Layout::kHeadsPerBlock;
  float grad_gamma[2][8] = {};
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * Layout::kHeadsPerBlock; base < total;
       base += stride) {
    const int64_t index = base + group;
    const bool active = index < total;
    const int64_t token = active ? index / heads : 0;
    const int head = active ? static_cast<int>(index % heads) : 0;
    const bool is_query = head < p.num_heads;
    const int64_t at = (token * (heads + p.num_kv_heads) + head) * kHeadDim;
    float low[4], high[4], grad_low[4], grad_high[4], gamma_low[4], gamma_high[4];
    LoadHead<kHeadDim>(p.qkv_T + at, lane, low, high);
    LoadHead<kHeadDim>(p.grad_qk_T + (token * heads + head) * kHeadDim, lane, grad_low, grad_high);
    LoadHead<kHeadDim>(is_query ? p.q_gamma_C : p.k_gamma_C, lane, gamma_low, gamma_high);
    const float rstd = Rstd<kHeadDim>(low, high, p.eps);
    const float2* table = p.rope_table + static_cast<int64_t>(p.position_T[token]) * Layout::kHalf + lane * 4;
    float dot = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 angle = table[j];
      // The transpose of a rotation is the rotation back.
      const float a = grad_low[j] * angle.x + grad_high[j] * angle.y;
      const float b = grad_high[j] * angle.x - grad_low[j] * angle.y;
      low[j] *= rstd;
      high[j] *= rstd;
      if (active) {
        grad_gamma[0][j] += is_query ? a * low[j] : 0.0f;
        grad_gamma[0][4 + j] += is_query ? b * high[j] : 0.0f;
        grad_gamma[1][j] += is_query ? 0.0f : a * low[j];
        grad_gamma[1][4 + j] += is_query ? 0.0f : b * high[j];
      }
      grad_low[j] = a * gamma_low[j];
      grad_high[j] = b * gamma_high[j];
      dot += grad_low[j] * low[j] + grad_high[j] * high[j];
    }
    const float mean = WarpSum<Layout::kLanes>(dot) / kHeadDim;
    if (!active) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      grad_low[j] = rstd * (grad_low[j] - low[j] * mean);
      grad_high[j] = rstd * (grad_high[j] - high[j] * mean);
    }
    Store4(p.grad_qkv_T + at + lane * 4, grad_low);
    Store4(p.grad_qkv_T + at + Layout::kHalf + lane * 4, grad_high);
  }
  __shared__ float tile[Layout::kHeadsPerBlock][kHeadDim];
  for (int kind = 0; kind < 2; ++kind) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      tile[group][lane * 4 + j] = grad_gamma[kind][j];
      tile[group][Layout::kHalf + lane * 4 + j] = grad_gamma[kind][4 + j];
    }
    __syncthreads();
    if (threadIdx.x < kHeadDim) {
      float sum = 0.0f;
      for (int i = 0; i < Layout::kHeadsPerBlock; ++i) sum += tile[i][threadIdx.x];
      partial[(static_cast<int64_t>(blockIdx.x) * 2 + kind) * kHeadDim + threadIdx.x] = sum;
    }
  }
}

// Block 0 sums the query rows, block 1 the key rows; one warp a column.
__global__ void SumGammaKernel(const float* partial, int blocks, int head_dim, nv_bfloat16* q_out,
                               nv_bfloat16* k_out) {
  const int lane = threadIdx.x % 32;
  for (int column = threadIdx.x / 32; column < head_dim; column += blockDim.x / 32) {
    float sum = 0.0f;
    for (int b = lane; b < blocks; b += 32) sum += partial[(b * 2 + blockIdx.x) * head_dim + column];
    sum = WarpSum(sum);
    if (lane == 0) (blockIdx.x == 0 ? q_out : k_out)[column] = __float2bfloat16_rn(sum);
  }
}

__global__ void FillRopeTableKernel(float2* table, int positions, int half, double theta) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= static_cast<int64_t>(positions) * half) return;
  const double exponent = static_cast<double>(at % half) / half;
  // Frequencies are float32, as in the reference models; the product and its sine are not.
  const double angle = static_cast<double>(at / half) * static_cast<float>(pow(theta, -exponent));
  table[at] = make_float2(static_cast<float>(cos(angle)), static_cast<float>(sin(angle)));
}

template <typename Params>
bool Valid(const Params& p) {
  return p.num_tokens >= 0 && p.num_heads > 0 && p.num_kv_heads > 0 && (p.head_dim == 64 || p.head_dim == 128);
}

}  // namespace

cudaError_t QkNormRopeForward(const QkNormRopeForwardParams& p, cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  if (p.head_dim == 128) {
    ForwardKernel<128><<<kBlocks, kThreads, 0, stream>>>(p);
  } else {
    ForwardKernel<64><<<kBlocks, kThreads, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

int64_t QkNormRopeBackwardWorkspaceBytes(int32_t head_dim) {
  return static_cast<int64_t>(kBlocks) * 2 * head_dim * sizeof(float);
}

cudaError_t QkNormRopeBackward(const QkNormRopeBackwardParams& p, void* workspace, cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  float* partial = static_cast<float*>(workspace);
  if (p.head_dim == 128) {
    BackwardKernel<128><<<kBlocks, kThreads, 0, stream>>>(p, partial);
  } else {
    BackwardKernel<64><<<kBlocks, kThreads, 0, stream>>>(p, partial);
  }
  SumGammaKernel<<<2, 1024, 0, stream>>>(partial, kBlocks, p.head_dim, p.grad_q_gamma_C, p.grad_k_gamma_C);
  return cudaGetLastError();
}

cudaError_t FillRopeTable(float2* table, int32_t positions, int32_t head_dim, double theta,
                          cudaStream_t stream) {
  if (positions < 0 || head_dim <= 0 || head_dim % 2 != 0) return cudaErrorInvalidValue;
  if (positions == 0) return cudaSuccess;
  const int64_t total = static_cast<int64_t>(positions) * (head_dim / 2);
  FillRopeTableKernel<<<(total + 255) / 256, 256, 0, stream>>>(table, positions, head_dim / 2, theta);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
