#include <algorithm>

#include "kernels/device/exchange.cuh"
#include "kernels/dispatch.h"

namespace switchyard::kernels {
namespace {

constexpr int kThreads = 1024;
constexpr int kTokens = 128;  // of a block
constexpr int kWords = kTokens / 32;
constexpr int kUnroll = 8;  // loads in flight of a thread that adds the counts of other blocks

// Which tokens of the block chose an expert (or go to a rank), one bit a token.
struct TokenMask {
  uint32_t word[kWords];

  __device__ void Add(int token) { atomicOr(&word[token / 32], 1u << (token % 32)); }
  __device__ bool Has(int token) const { return (word[token / 32] >> (token % 32) & 1u) != 0; }
  // Members below `token`.
  __device__ int Below(int token) const {
    int count = 0;
#pragma unroll
    for (int w = 0; w < kWords; ++w) {
      const int bits = min(max(token - 32 * w, 0), 32);
      count += __popc(bits == 32 ? word[w] : word[w] & ((1u << bits) - 1));
    }
    return count;
  }
};

// before[j] = sum over earlier blocks of their counts. Every block publishes its own counts before
// it waits, and earlier blocks start no later: no wait is for a block that cannot run. Clears *go
// when a block has failed.
__device__ void AddEarlierBlocks(const DispatchPlanParams& p, const TokenMask* mask, int entries,
                                 uint32_t tag, int32_t* before, int* go) {
  const int block = static_cast<int>(blockIdx.x);
  for (int j = threadIdx.x; j < entries; j += kThreads) {
    before[j] = 0;
    const uint64_t word = static_cast<uint64_t>(tag) << 32 | mask[j].Below(kTokens);
    *static_cast<volatile uint64_t*>(p.scratch + static_cast<int64_t>(block) * entries + j) = word;
  }
  __syncthreads();
  const int parts = max(1, kThreads / entries);
  const int step = kThreads / parts;
  const int part = static_cast<int>(threadIdx.x) / step;
  for (int j = static_cast<int>(threadIdx.x) % step; j < entries && part < parts; j += step) {
    const volatile uint64_t* column = p.scratch + j;
    int32_t sum = 0;
    for (int first = part; first < block; first += parts * kUnroll) {
      uint64_t word[kUnroll];
      bool all = false;
      while (!all) {
        all = true;
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          const int other = first + u * parts;
          word[u] = static_cast<uint64_t>(tag) << 32;
          if (other < block) word[u] = column[static_cast<int64_t>(other) * entries];
          all = all && static_cast<uint32_t>(word[u] >> 32) == tag;
        }
        if (!all && LoadVolatile(p.control.error) != 0) {
          *go = 0;
          break;
        }
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) sum += static_cast<int32_t>(word[u]);
    }
    if (sum != 0) atomicAdd(&before[j], sum);
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) PlanKernel(DispatchPlanParams p) {
  __shared__ TokenMask mask[kMaxExchangeExperts + kMaxExchangeRanks];  // experts, then ranks
  __shared__ int32_t before[kMaxExchangeExperts + kMaxExchangeRanks];
  __shared__ int go;
  const ExchangeControl& c = p.control;
  const int experts = p.num_experts, ranks = c.size, local = experts / ranks, k = p.top_k;
  const int entries = experts + ranks;
  const int64_t first_token = static_cast<int64_t>(blockIdx.x) * kTokens;
  const int tokens =
      static_cast<int>(min(static_cast<int64_t>(kTokens), p.num_tokens - first_token));
  const int32_t* expert = p.expert_TK + first_token * k;
  const uint32_t completed = LoadVolatile(c.state), error = LoadVolatile(c.error);
  cudaTriggerProgrammaticLaunchCompletion();

  for (int i = threadIdx.x; i < entries * kWords; i += kThreads) {
    mask[i / kWords].word[i % kWords] = 0;
  }
  if (threadIdx.x == 0) go = error == 0 ? 1 : 0;
  __syncthreads();
  for (int i = threadIdx.x; i < tokens * k; i += kThreads) {
    const int e = expert[i];
    if (e >= experts) Fail(c, ExchangeFailure::kBadExpert, c.rank);
    if (e < 0 || e >= experts) continue;
    mask[e].Add(i / k);
    mask[experts + e / local].Add(i / k);
  }
  __syncthreads();
  if (go == 0) return;
  AddEarlierBlocks(p, mask, entries, completed + 1, before, &go);
  if (go == 0) return;

  const auto slot_of = [&](int rank, int token) {
    return mask[experts + rank].Has(token)
               ? before[experts + rank] + mask[experts + rank].Below(token)
               : -1;
  };
  for (int i = threadIdx.x; i < ranks * kTokens; i += kThreads) {
    const int rank = i / kTokens, token = i % kTokens;
    if (token >= tokens) continue;
    const int slot = slot_of(rank, token);
    const int64_t row = rank * p.num_tokens;
    p.slot_PT[row + first_token + token] = slot;
    if (slot >= 0) p.token_of_slot_PT[row + slot] = static_cast<int32_t>(first_token + token);
  }
  for (int i = threadIdx.x; i < tokens * k; i += kThreads) {
    const int e = expert[i];
    const bool routed = e >= 0 && e < experts;
    p.place_TK[first_token * k + i] =
        routed ? static_cast<int32_t>(e / local * p.num_tokens + slot_of(e / local, i / k)) : -1;
  }

  // The peers have consumed the choices of the dispatch before.
  if (static_cast<int>(threadIdx.x) < ranks && c.taken_from[threadIdx.x] != nullptr &&
      !WaitFor(c.taken_from[threadIdx.x], completed, c, ExchangeFailure::kTakenLate, threadIdx.x)) {
    go = 0;
  }
  __syncthreads();
  if (go == 0) return;
  for (int r = 1; r <= ranks; ++r) {
    const int rank = (c.rank + r) % ranks;
    for (int i = threadIdx.x; i < tokens * k; i += kThreads) {
      const int slot = slot_of(rank, i / k);
      if (slot < 0) continue;
      const int e = expert[i];
      const int64_t to = static_cast<int64_t>(slot) * k + i % k;
      int32_t choice = -1;
      if (e >= 0 && e < experts && e / local == rank) {
        choice = (e % local) << kChoiceRankBits | (before[e] + mask[e].Below(i / k));
        p.weight_to[rank][to] = p.weight_TK[first_token * k + i];
      }
      p.choice_to[rank][to] = choice;
    }
  }
  if (blockIdx.x != gridDim.x - 1) return;
  for (int j = threadIdx.x; j < entries; j += kThreads) {
    const int total = before[j] + mask[j].Below(kTokens);
    const bool is_rank = j >= experts;
    const int rank = is_rank ? j - experts : j / local;
    p.table_to[rank][is_rank ? kMaxExchangeExperts : j % local] = total;
    if (is_rank) p.send_count_P[rank] = total;
  }
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < ranks && p.ready_to[threadIdx.x] != nullptr) {
    StoreReleaseSystem(p.ready_to[threadIdx.x], completed + 1);
  }
}

int64_t Blocks(int64_t num_tokens) {
  return std::max<int64_t>(1, (num_tokens + kTokens - 1) / kTokens);
}

}  // namespace

int64_t DispatchPlanScratchBytes(int64_t num_tokens, int32_t num_experts, int32_t ranks) {
  return Blocks(num_tokens) * (num_experts + ranks) * static_cast<int64_t>(sizeof(uint64_t));
}

cudaError_t DispatchPlan(const DispatchPlanParams& p, cudaStream_t stream) {
  if (p.num_tokens < 0 || p.num_tokens >= kMaxExchangeTokens || p.top_k <= 0 ||
      p.top_k > kMaxExchangeTopK || p.control.size <= 0 || p.control.size > kMaxExchangeRanks ||
      p.num_experts <= 0 || p.num_experts > kMaxExchangeExperts ||
      p.num_experts % p.control.size != 0) {
    return cudaErrorInvalidValue;
  }
  PlanKernel<<<static_cast<int>(Blocks(p.num_tokens)), kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
