// Flags between GPUs: bounded waits, signals, and the end of an exchange.
#pragma once

#include <cstdint>

#include "kernels/dispatch.h"

namespace switchyard::kernels {

inline constexpr int kExchangeThreads = 512;
inline constexpr int kExchangeWarps = kExchangeThreads / 32;

// A choice on the wire: local expert and how many earlier rows of the same source that expert has.
inline constexpr int kChoiceRankBits = 22;
static_assert(int64_t{1} << kChoiceRankBits == kMaxExchangeTokens);

__device__ __forceinline__ uint32_t LoadAcquireSystem(const uint32_t* p) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}

// Everything that this thread, and threads it has synchronised with, wrote before is visible to who
// acquires the value.
__device__ __forceinline__ void StoreReleaseSystem(uint32_t* p, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}

__device__ __forceinline__ uint32_t LoadVolatile(const uint32_t* p) {
  return *static_cast<const volatile uint32_t*>(p);
}

__device__ __forceinline__ uint64_t GlobalNanoseconds() {
  uint64_t value;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
  return value;
}

// The first failure stays.
__device__ __forceinline__ void Fail(const ExchangeControl& c, ExchangeFailure reason, int peer) {
  const uint32_t word = static_cast<uint32_t>(reason) << 8 | static_cast<uint32_t>(peer);
  if (atomicCAS(c.error, 0u, word) == 0 && c.host_error != nullptr) {
    StoreReleaseSystem(c.host_error, word);
  }
}

// Waits until *flag has reached `target`. False after the limit or when any thread has failed.
__device__ __forceinline__ bool WaitFor(const uint32_t* flag, uint32_t target,
                                        const ExchangeControl& c, ExchangeFailure reason,
                                        int peer) {
  const auto reached = [&] { return static_cast<int32_t>(LoadAcquireSystem(flag) - target) >= 0; };
  if (reached()) return true;
  const uint64_t start = GlobalNanoseconds();
  for (uint32_t polls = 1;; ++polls) {
    if (reached()) return true;
    if (polls % 64 != 0) continue;
    if (LoadVolatile(c.error) != 0) return false;
    if (GlobalNanoseconds() - start > c.limit_ns) {
      Fail(c, reason, peer);
      return false;
    }
  }
}

// Whether the waits of all lanes ended well; called by the whole warp. What one lane has acquired
// is then visible to all: a vote alone orders no memory.
__device__ __forceinline__ bool AllArrived(bool arrived) {
  const bool all = __all_sync(~0u, arrived);
  __syncwarp();
  return all;
}

// Called by all threads of every block, last. The last block counts the exchange and tells the
// peers that what they sent is consumed.
__device__ __forceinline__ void FinishExchange(const ExchangeControl& c, uint32_t completed) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(&c.state[1], 1u) != gridDim.x - 1) return;
  __threadfence();
  c.state[1] = 0;
  c.state[0] = completed;
  if (LoadVolatile(c.error) != 0) return;
  for (int peer = 0; peer < c.size; ++peer) {
    if (c.taken_to[peer] != nullptr) StoreReleaseSystem(c.taken_to[peer], completed);
  }
}

}  // namespace switchyard::kernels
