#include <cuda_pipeline_primitives.h>

#include <algorithm>

#include "kernels/device/dependent_launch.cuh"
#include "kernels/device/grid.cuh"
#include "kernels/device/reduce.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/qk_norm_rope.h"

namespace switchyard::kernels {
namespace {

constexpr int kMaxBlocksPerMultiprocessor = 4;
constexpr int kMaxThreads = kMaxHeadsWidth / 16;
constexpr int kStages = 3;  // tokens of a block in shared memory
// 16-byte pieces of a token that a thread reads.
constexpr int kForwardPieces = 2, kBackwardPieces = 5;
// Of a thread: four and three blocks a multiprocessor with Qwen3's 36 heads of 128.
constexpr int kForwardRegisters = 56, kBackwardRegisters = 72;
constexpr int kRegistersPerMultiprocessor = 65'536;

// C / 16 lanes hold a head: lane l has elements 8l .. 8l+7 of each half, so that a rotation stays
// in a lane. A block has one group of lanes for each head of a token and walks over tokens, so that
// a thread keeps its head and its sums for gamma. Groups beyond the last head work on head 0
// without storing: shuffles need whole warps.
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
  // To this thread's places `to` and `to + blockDim.x` in shared memory.
  __device__ void Copy(const nv_bfloat16* p, uint4* to) const {
    __pipeline_memcpy_async(to, p + lane * kVec, sizeof(uint4));
    __pipeline_memcpy_async(to + blockDim.x, p + kHalf + lane * kVec, sizeof(uint4));
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

// Tokens to come are on their way to shared memory while this one is worked on: a thread copies
// for itself and waits for its own copies alone. Positions are read a token ahead, so that no
// table row waits for one.
template <int kHeadDim>
__global__ void __launch_bounds__(kMaxThreads) ForwardKernel(QkNormRopeForwardParams p) {
  extern __shared__ uint4 ring[];  // [kStages, kForwardPieces, threads]
  WaitForPrevious();
  const Group<kHeadDim> group(p.num_heads, p.num_kv_heads);
  const int heads = p.num_heads + p.num_kv_heads;
  const auto place = [&](int stage) {
    return ring + stage * kForwardPieces * blockDim.x + threadIdx.x;
  };
  const auto copy = [&](int64_t token, int stage) {
    if (token < p.num_tokens) {
      group.Copy(p.qkv_T + (token * (heads + p.num_kv_heads) + group.head) * kHeadDim,
                 place(stage));
    }
    __pipeline_commit();
  };
  int64_t token = blockIdx.x;
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) copy(token + s * gridDim.x, s);
  int32_t next_position = token < p.num_tokens ? p.position_T[token] : 0;
  float gamma_low[kVec], gamma_high[kVec];
  group.Load(group.is_query ? p.q_gamma_C : p.k_gamma_C, gamma_low, gamma_high);
  for (int stage = 0; token < p.num_tokens; token += gridDim.x) {
    float2 angle[kVec];
    group.LoadAngles(p.rope_table, next_position, angle);
    if (token + gridDim.x < p.num_tokens) next_position = p.position_T[token + gridDim.x];
    copy(token + (kStages - 1) * gridDim.x, stage == 0 ? kStages - 1 : stage - 1);
    __pipeline_wait_prior(kStages - 1);
    float low[kVec], high[kVec];
    Unpack8(*place(stage), low);
    Unpack8(place(stage)[blockDim.x], high);
    const float rstd = group.Rstd(low, high, p.eps);
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float a = low[j] * rstd * gamma_low[j];
      const float b = high[j] * rstd * gamma_high[j];
      low[j] = a * angle[j].x - b * angle[j].y;
      high[j] = b * angle[j].x + a * angle[j].y;
    }
    if (group.active) group.Store(p.qk_T + (token * heads + group.head) * kHeadDim, low, high);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
}

// Sums of dgamma: row b of `partial` [blocks, 2C] has block b's query part, then its key part.
template <int kHeadDim>
__global__ void __maxnreg__(kBackwardRegisters)
    BackwardKernel(QkNormRopeBackwardParams p, float* partial) {
  extern __shared__ uint4 ring[];  // [kStages, kBackwardPieces, threads]; at the end [heads, C]
  WaitForPrevious();
  const Group<kHeadDim> group(p.num_heads, p.num_kv_heads);
  const int heads = p.num_heads + p.num_kv_heads;
  const int64_t width = static_cast<int64_t>(heads + p.num_kv_heads) * kHeadDim;
  const int value_width = p.num_kv_heads * kHeadDim;
  const bool has_value = static_cast<int>(threadIdx.x) * kVec < value_width;  // it is passed on
  const auto place = [&](int stage) {
    return ring + stage * kBackwardPieces * blockDim.x + threadIdx.x;
  };
  const auto copy = [&](int64_t token, int stage) {
    if (token < p.num_tokens) {
      group.Copy(p.qkv_T + token * width + group.head * kHeadDim, place(stage));
      group.Copy(group.is_query
                     ? p.grad_query_T + token * p.grad_query_stride + group.head * kHeadDim
                     : p.grad_key_T + token * value_width + (group.head - p.num_heads) * kHeadDim,
                 place(stage) + 2 * blockDim.x);
      if (has_value) {
        __pipeline_memcpy_async(place(stage) + 4 * blockDim.x,
                                p.grad_value_T + token * value_width + threadIdx.x * kVec,
                                sizeof(uint4));
      }
    }
    __pipeline_commit();
  };
  int64_t token = blockIdx.x;
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) copy(token + s * gridDim.x, s);
  int32_t next_position = token < p.num_tokens ? p.position_T[token] : 0;
  float sum_low[kVec] = {}, sum_high[kVec] = {};
  for (int stage = 0; token < p.num_tokens; token += gridDim.x) {
    float2 angle[kVec];
    group.LoadAngles(p.rope_table, next_position, angle);
    if (token + gridDim.x < p.num_tokens) next_position = p.position_T[token + gridDim.x];
    copy(token + (kStages - 1) * gridDim.x, stage == 0 ? kStages - 1 : stage - 1);
    __pipeline_wait_prior(kStages - 1);
    float low[kVec], high[kVec], grad_low[kVec], grad_high[kVec];
    Unpack8(*place(stage), low);
    Unpack8(place(stage)[blockDim.x], high);
    Unpack8(place(stage)[2 * blockDim.x], grad_low);
    Unpack8(place(stage)[3 * blockDim.x], grad_high);
    float gamma_low[kVec], gamma_high[kVec];  // from L1 each time: registers are scarcer
    group.Load(group.is_query ? p.q_gamma_C : p.k_gamma_C, gamma_low, gamma_high);
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
    nv_bfloat16* const out = p.grad_qkv_T + token * width;
    if (group.active) group.Store(out + group.head * kHeadDim, grad_low, grad_high);
    if (has_value) {
      reinterpret_cast<uint4*>(out + heads * kHeadDim)[threadIdx.x] = place(stage)[4 * blockDim.x];
    }
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }
  float* const tile = reinterpret_cast<float*>(ring);
  __syncthreads();
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
__global__ void __launch_bounds__(kSumColumnThreads)
    SumGammaKernel(const float* partial, int blocks, int head_dim, nv_bfloat16* q_out,
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

// All blocks are resident at once: a second wave would begin with an idle memory.
int Blocks(int threads, int registers) {
  return kMultiprocessors * std::clamp(kRegistersPerMultiprocessor / (threads * registers), 1,
                                       kMaxBlocksPerMultiprocessor);
}

template <typename... Params, typename... Args>
cudaError_t Launch(void (*kernel)(Params...), int blocks, int threads, int pieces,
                   cudaStream_t stream, Args... args) {
  const int bytes = kStages * pieces * static_cast<int>(sizeof(uint4));  // of a thread
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kMaxThreads * bytes);
  if (error != cudaSuccess) return error;
  return LaunchBehind(kernel, dim3(blocks), dim3(threads), threads * bytes, stream, args...);
}

}  // namespace

cudaError_t QkNormRopeForward(const QkNormRopeForwardParams& p, cudaStream_t stream) {
  if (!Valid(p)) return cudaErrorInvalidValue;
  if (p.num_tokens == 0) return cudaSuccess;
  const int threads = Threads(p.num_heads + p.num_kv_heads, p.head_dim);
  const auto kernel = p.head_dim == 128  ? ForwardKernel<128>
                      : p.head_dim == 64 ? ForwardKernel<64>
                                         : ForwardKernel<32>;
  return Launch(kernel, Blocks(threads, kForwardRegisters), threads, kForwardPieces, stream, p);
}

int64_t QkNormRopeBackwardWorkspaceBytes(int32_t head_dim) {
  return static_cast<int64_t>(kMultiprocessors) * kMaxBlocksPerMultiprocessor * 2 * head_dim *
         sizeof(float);
}

cudaError_t QkNormRopeBackward(const QkNormRopeBackwardParams& p, void* workspace,
                               cudaStream_t stream) {
  if (!Valid(p) || p.num_heads < p.num_kv_heads || p.grad_query_stride % kVec != 0) {
    return cudaErrorInvalidValue;
  }
  float* partial = static_cast<float*>(workspace);
  const int threads = Threads(p.num_heads + p.num_kv_heads, p.head_dim);
  const int blocks = Blocks(threads, kBackwardRegisters);
  const auto kernel = p.head_dim == 128  ? BackwardKernel<128>
                      : p.head_dim == 64 ? BackwardKernel<64>
                                         : BackwardKernel<32>;
  const cudaError_t error = Launch(kernel, blocks, threads, kBackwardPieces, stream, p, partial);
  if (error != cudaSuccess) return error;
  return LaunchBehind(SumGammaKernel, dim3(2 * p.head_dim / kSumColumns), dim3(kSumColumnThreads),
                      0, stream, partial, blocks, p.head_dim, p.grad_q_gamma_C, p.grad_k_gamma_C);
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
