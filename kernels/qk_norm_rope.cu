#include "kernels/device/dependent_launch.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/qk_norm_rope.h"

namespace switchyard::kernels {
namespace {

constexpr int kBlocks = 132 * 4;
constexpr int kMaxThreads = kMaxHeadsWidth / 16;

// C / 16 lanes hold a head: lane l has elements 8l .. 8l+7 of each half, so that a rotation stays
// in a lane. A block has one group of lanes for each head of a token and walks over tokens, so that
// a thread keeps its head's gamma. Groups beyond the last head work on head 0 without storing:
// shuffles need whole warps.
template <int kHeadDim>
struct Group {
  static constexpr int kLanes = kHeadDim / 16;
  static constexpr int kHalf = kHeadDim / 2;

  __device__ Group(int num_heads, int num_kv_heads)
      : lane(threadIdx.x % kLanes),
        active(static_cast<int>(threadIdx.x) / kLanes < num_heads + num_kv_heads),
        head(active ? static_cast<int>(threadIdx.x) / kLanes : 0),
        is_query(head < num_heads) {}

  __device__ void Load(const nv_bfloat16* p, float (&low)[kVec], float (&high)[kVec]) const {
    Load8(p + lane * kVec, low);
    Load8(p + kHalf + lane * kVec, high);
  }
  __device__ void Store(nv_bfloat16* p, const float (&low)[kVec], const float (&high)[kVec]) const {
    Store8(p + lane * kVec, low);
    Store8(p + kHalf + lane * kVec, high);
  }
  // cos and sin of this lane's pairs.
  __device__ void LoadAngles(const float2* table, int32_t position, float2 (&angle)[kVec]) const {
    const float4* from = reinterpret_cast<const float4*>(
        table + static_cast<int64_t>(position) * kHalf + lane * kVec);
#pragma unroll
    for (int j = 0; j < kVec / 2; ++j) {
      const float4 two = __ldg(from + j);
      angle[2 * j] = make_float2(two.x, two.y);
      angle[2 * j + 1] = make_float2(two.z, two.w);
    }
  }
  __device__ float Rstd(const float (&low)[kVec], const float (&high)[kVec], float eps) const {
    float square = 0.0f;
#pragma unroll
    for (int j = 0; j < kVec; ++j) square += low[j] * low[j] + high[j] * high[j];
    return rsqrtf(WarpSum<kLanes>(square) / kHeadDim + eps);
  }

  int lane;
  bool active;
  int head;
  bool is_query;
};

template <int kHeadDim>
__global__ void __launch_bounds__(kMaxThreads) ForwardKernel(QkNormRopeForwardParams p) {
  WaitForPrevious();
  const Group<kHeadDim> group(p.num_heads, p.num_kv_heads);
  const int heads = p.num_heads + p.num_kv_heads;
  float gamma_low[kVec], gamma_high[kVec];
  group.Load(group.is_query ? p.q_gamma_C : p.k_gamma_C, gamma_low, gamma_high);
  for (int64_t token = blockIdx.x; token < p.num_tokens; token += gridDim.x) {
    float low[kVec], high[kVec];
    float2 angle[kVec];
    group.Load(p.qkv_T + (token * (heads + p.num_kv_heads) + group.head) * kHeadDim, low, high);
    group.LoadAngles(p.rope_table, p.position_T[token], angle);
    const float rstd = group.Rstd(low, high, p.eps);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float a = low[j] * rstd * gamma_low[j];
      const float b = high[j] * rstd * gamma_high[j];
      low[j] = a * angle[j].x - b * angle[j].y;
      high[j] = b * angle[j].x + a * angle[j].y;
    }
    if (group.active) group.Store(p.qk_T + (token * heads + group.head) * kHeadDim, low, high);
  }
}

// Sums of dgamma: row b of `partial` [blocks, 2C] has block b's query part, then its key part.
template <int kHeadDim>
__global__ void __launch_bounds__(kMaxThreads)
    BackwardKernel(QkNormRopeBackwardParams p, float* partial) {
  WaitForPrevious();
  const Group<kHeadDim> group(p.num_heads, p.num_kv_heads);
  const int heads = p.num_heads + p.num_kv_heads;
  float gamma_low[kVec], gamma_high[kVec], sum_low[kVec] = {}, sum_high[kVec] = {};
  group.Load(group.is_query ? p.q_gamma_C : p.k_gamma_C, gamma_low, gamma_high);
  for (int64_t token = blockIdx.x; token < p.num_tokens; token += gridDim.x) {
    const int64_t at = (token * (heads + p.num_kv_heads) + group.head) * kHeadDim;
    float low[kVec], high[kVec], grad_low[kVec], grad_high[kVec];
    float2 angle[kVec];
    group.Load(p.qkv_T + at, low, high);
    group.Load(p.grad_qk_T + (token * heads + group.head) * kHeadDim, grad_low, grad_high);
    group.LoadAngles(p.rope_table, p.position_T[token], angle);
    const float rstd = group.Rstd(low, high, p.eps);
    float dot = 0.0f;
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      // The transpose of a rotation is the rotation back.
      const float a = grad_low[j] * angle[j].x + grad_high[j] * angle[j].y;
      const float b = grad_high[j] * angle[j].x - grad_low[j] * angle[j].y;
      low[j] *= rstd;
      high[j] *= rstd;
      sum_low[j] += a * low[j];
      sum_high[j] += b * high[j];
      grad_low[j] = a * gamma_low[j];
      grad_high[j] = b * gamma_high[j];
      dot += grad_low[j] * low[j] + grad_high[j] * high[j];
    }
    const float mean = WarpSum<Group<kHeadDim>::kLanes>(dot) / kHeadDim;
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      grad_low[j] = rstd * (grad_low[j] - low[j] * mean);
      grad_high[j] = rstd * (grad_high[j] - high[j] * mean);
    }
    if (group.active) group.Store(p.grad_qkv_T + at, grad_low, grad_high);
  }
  extern __shared__ float tile[];  // [heads, C]
  if (group.active) {
    Store8(tile + group.head * kHeadDim + group.lane * kVec, sum_low);
    Store8(tile + group.head * kHeadDim + Group<kHeadDim>::kHalf + group.lane * kVec, sum_high);
  }
  __syncthreads();
  for (int column = threadIdx.x; column < 2 * kHeadDim; column += blockDim.x) {
    const bool query = column < kHeadDim;
    float sum = 0.0f;
    for (int h = query ? 0 : p.num_heads; h < (query ? p.num_heads : heads); ++h) {
      sum += tile[h * kHeadDim + column % kHeadDim];
    }
    partial[static_cast<int64_t>(blockIdx.x) * 2 * kHeadDim + column] = sum;
  }
}

// Columns 0 .. C-1 of a row of `partial` are for the query gamma, C .. 2C-1 for the key gamma.
__global__ void SumGammaKernel(const float* partial, int blocks, int head_dim, nv_bfloat16* q_out,
                               nv_bfloat16* k_out) {
  WaitForPrevious();
  float sum;
  const int column = SumColumn(partial, blocks, 2 * head_dim, sum);
  if (column < 0) return;
  (column < head_dim ? q_out[column] : k_out[column - head_dim]) = __float2bfloat16_rn(sum);
}

__global__ void FillRopeTableKernel(float2* table, int positions, int half, double theta) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= static_cast<int64_t>(positions) * half) return;
  const double exponent = static_cast<double>(at % half) / half;
  // Frequencies are float32, as in the reference models; the product and its sine are not.
  const double angle = static_cast<double>(at / half) * static_cast<float>(pow(theta, -exponent));
  table[at] = make_float2(static_cast<float>(cos(angle)), static_cast<float>(sin(angle)));
}

int Threads(int heads, int head_dim) { return (heads * (head_dim / 16) + 31) / 32 * 32; }

template <typename Params>
bool Valid(const Params& p) {
  return p.num_tokens >= 0 && p.num_heads > 0 && p.num_kv_heads > 0 &&
         (p.head_dim == 32 || p.head_dim == 64 || p.head_dim == 128) &&
         Threads(p.num_heads + p.num_kv_heads, p.head_dim) <= kMaxThreads;
}

template <int kHeadDim>
cudaError_t LaunchBackward(const QkNormRopeBackwardParams& p, float* partial, cudaStream_t stream) {
  const int heads = p.num_heads + p.num_kv_heads;
  const int shared_bytes = heads * kHeadDim * static_cast<int>(sizeof(float));
  const cudaError_t error = cudaFuncSetAttribute(
      BackwardKernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  if (error != cudaSuccess) return error;
  return LaunchBehind(BackwardKernel<kHeadDim>, dim3(kBlocks), dim3(Threads(heads, kHeadDim)),
                      shared_bytes, stream, p, partial);
}

}  // namespace

cudaError_t QkNormRopeForward(const QkNormRopeForwardParams& p, cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  const int threads = Threads(p.num_heads + p.num_kv_heads, p.head_dim);
  const auto kernel = p.head_dim == 128  ? ForwardKernel<128>
                      : p.head_dim == 64 ? ForwardKernel<64>
                                         : ForwardKernel<32>;
  return LaunchBehind(kernel, dim3(kBlocks), dim3(threads), 0, stream, p);
}

int64_t QkNormRopeBackwardWorkspaceBytes(int32_t head_dim) {
  return static_cast<int64_t>(kBlocks) * 2 * head_dim * sizeof(float);
}

cudaError_t QkNormRopeBackward(const QkNormRopeBackwardParams& p, void* workspace,
                               cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  float* partial = static_cast<float*>(workspace);
  const cudaError_t error = p.head_dim == 128  ? LaunchBackward<128>(p, partial, stream)
                            : p.head_dim == 64 ? LaunchBackward<64>(p, partial, stream)
                                               : LaunchBackward<32>(p, partial, stream);
  if (error != cudaSuccess) return error;
  return LaunchBehind(SumGammaKernel, dim3(2 * p.head_dim / 32), dim3(kSumColumnThreads), 0, stream,
                      partial, kBlocks, p.head_dim, p.grad_q_gamma_C, p.grad_k_gamma_C);
}

cudaError_t FillRopeTable(float2* table, int32_t positions, int32_t head_dim, double theta,
                          cudaStream_t stream) {
  if (positions < 0 || head_dim <= 0 || head_dim % 2 != 0) return cudaErrorInvalidValue;
  if (positions == 0) return cudaSuccess;
  const int64_t total = static_cast<int64_t>(positions) * (head_dim / 2);
  FillRopeTableKernel<<<(total + 255) / 256, 256, 0, stream>>>(table, positions, head_dim / 2,
                                                               theta);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
