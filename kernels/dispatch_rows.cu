#include <algorithm>

#include "kernels/device/exchange.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/dispatch.h"

namespace switchyard::kernels {
namespace {

constexpr int kUnroll = 8;  // 16-byte loads in flight of a lane, a row
constexpr int kGroup = 2;   // slots that a warp expands at a time
static_assert(kRowTile % kGroup == 0);

__device__ int Tiles(int slots) { return (slots + kRowTile - 1) / kRowTile; }

// A warp's share of the units 0, 1, 2, ... of `blocks` blocks: neighbours lie in different blocks.
struct Share {
  int first, step;
  __device__ Share(int block, int blocks)
      : first(static_cast<int>(threadIdx.x) / 32 * blocks + block), step(kExchangeWarps * blocks) {}
};

// Pushes tiles of rows, all destinations of one tile before the next tile.
__device__ void SendTiles(const ExchangeRowsParams& p, uint32_t completed) {
  const ExchangeControl& c = p.control;
  const int lane = static_cast<int>(threadIdx.x) % 32, peers = c.size - 1;
  const int vectors = p.hidden / kVec;
  const Share share(blockIdx.x, p.send_blocks);
  const int64_t units = static_cast<int64_t>(peers) * Tiles(static_cast<int>(p.num_tokens));
  uint32_t free_ranks = 0;  // which have taken the exchange before
  for (int64_t unit = share.first; unit < units; unit += share.step) {
    const int to = (c.rank + 1 + static_cast<int>(unit % peers)) % c.size;
    const int first_slot = static_cast<int>(unit / peers) * kRowTile;
    const int slots = min(kRowTile, p.send_count_P[to] - first_slot);
    if (slots <= 0) continue;
    if ((free_ranks >> to & 1u) == 0 && c.taken_from[to] != nullptr) {
      bool taken = true;
      if (lane == 0) {
        taken = WaitFor(c.taken_from[to], completed, c, ExchangeFailure::kTakenLate, to);
      }
      if (!AllArrived(taken)) return;
      free_ranks |= 1u << to;
    }
    int token = 0;
    if (lane < slots) token = p.token_of_slot_PT[to * p.num_tokens + first_slot + lane];
    for (int slot = 0; slot < slots; ++slot) {
      const int64_t row = __shfl_sync(~0u, token, slot);
      const uint4* from = reinterpret_cast<const uint4*>(p.x_TD + row * p.hidden);
      uint4* there = reinterpret_cast<uint4*>(p.rows_to[to] +
                                              static_cast<int64_t>(first_slot + slot) * p.hidden);
      for (int first = lane; first < vectors; first += 32 * kUnroll) {
        uint4 v[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          if (first + 32 * u < vectors) v[u] = from[first + 32 * u];
        }
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          if (first + 32 * u < vectors) there[first + 32 * u] = v[u];
        }
      }
    }
    if (p.flag_to[to] == nullptr) continue;
    __syncwarp();
    if (lane == 0) StoreReleaseSystem(p.flag_to[to] + unit / peers, completed + 1);
  }
}

struct ReceiveShared {
  int32_t first_row[kMaxExchangeExperts];  // [L, P]: rows of the expert before those of the source
  int32_t slots[kMaxExchangeRanks];
  int32_t warp_sum[kExchangeWarps];
  int32_t row[kExchangeWarps][kGroup * kMaxExchangeTopK];  // of the choices of a warp's slots
  int ok;
};

// first_row and slots from the tables of all sources; the first receiving block writes what the
// caller keeps. False on a failure: the list is empty then.
__device__ bool ReadTables(const ExchangeRowsParams& p, uint32_t completed, ReceiveShared& s) {
  const ExchangeControl& c = p.control;
  const int i = static_cast<int>(threadIdx.x), lane = i % 32, warp = i / 32;
  const int ranks = c.size, entries = p.num_local_experts * ranks;
  const bool is_first = static_cast<int>(blockIdx.x) == p.send_blocks;
  if (i < ranks) {
    bool ok = p.ready_from[i] == nullptr ||
              WaitFor(p.ready_from[i], completed + 1, c, ExchangeFailure::kChoicesLate, i);
    if (ok) {
      s.slots[i] = __ldcg(p.table_from[i] + kMaxExchangeExperts);
      if (s.slots[i] < 0 || s.slots[i] > p.num_tokens) {
        Fail(c, ExchangeFailure::kBadCount, i);
        ok = false;
      }
    }
    if (!ok) s.ok = 0;
  }
  __syncthreads();
  if (s.ok == 0) {
    if (is_first) {
      for (int l = i; l <= p.num_local_experts; l += kExchangeThreads) p.expert_offset_L1[l] = 0;
    }
    return false;
  }
  // Exclusive prefix sum over (expert, source).
  const int32_t count = i < entries ? __ldcg(p.table_from[i % ranks] + i / ranks) : 0;
  int32_t sum = count;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int32_t below = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += below;
  }
  if (lane == 31) s.warp_sum[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) sum += s.warp_sum[w];
  if (i < entries) s.first_row[i] = sum - count;
  if (is_first) {
    if (i < ranks) p.recv_count_P[i] = s.slots[i];
    if (i < entries && i % ranks == 0) p.expert_offset_L1[i / ranks] = sum - count;
    if (i == entries - 1) p.expert_offset_L1[p.num_local_experts] = sum;
  }
  return true;
}

// Expands up to kGroup slots of `source` from first_slot on. `row`: of this warp.
__device__ void ExpandGroup(const ExchangeRowsParams& p, const ReceiveShared& s, int32_t* row,
                            int source, int first_slot) {
  const int lane = static_cast<int>(threadIdx.x) % 32, k = p.top_k, ranks = p.control.size;
  const int vectors = p.hidden / kVec;
  const int slots = min(kGroup, s.slots[source] - first_slot);
  const bool is_own = source == p.control.rank;
  const nv_bfloat16* base = is_own ? p.x_TD : p.rows_from[source];
  nv_bfloat16* keep = is_own ? nullptr : p.keep[source];
  int32_t from_row = first_slot + min(lane, slots - 1);
  if (is_own) from_row = p.token_of_slot_PT[source * p.num_tokens + from_row];
  const int64_t first_choice = static_cast<int64_t>(first_slot) * k;
  int32_t* saved = p.row_of_choice_PTK + source * p.num_tokens * k + first_choice;
  for (int i = lane; i < slots * k; i += 32) {
    if (p.build) {
      const int32_t choice = __ldcg(p.choice_from[source] + first_choice + i);
      row[i] = -1;
      if (choice >= 0) {
        row[i] = s.first_row[(choice >> kChoiceRankBits) * ranks + source] +
                 (choice & ((1 << kChoiceRankBits) - 1));
        p.weight_R[row[i]] = __ldcg(p.weight_from[source] + first_choice + i);
      }
      saved[i] = row[i];
    } else {
      row[i] = saved[i];
    }
  }
  const uint4* from[kGroup];
#pragma unroll
  for (int g = 0; g < kGroup; ++g) {
    from[g] = reinterpret_cast<const uint4*>(
        base + static_cast<int64_t>(__shfl_sync(~0u, from_row, g)) * p.hidden);
  }
  __syncwarp();
  for (int first = lane; first < vectors; first += 32 * kUnroll) {
    uint4 v[kGroup][kUnroll];
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (first + 32 * u < vectors) v[g][u] = __ldcg(from[g] + first + 32 * u);
      }
    }
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      if (g >= slots) break;
      const auto store = [&](nv_bfloat16* rows, int64_t at) {
        uint4* to = reinterpret_cast<uint4*>(rows + at * p.hidden);
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          if (first + 32 * u < vectors) __stcs(to + first + 32 * u, v[g][u]);
        }
      };
      if (keep != nullptr) store(keep, first_slot + g);
      for (int i = 0; i < k; ++i) {
        const int32_t r = row[g * k + i];
        if (r >= 0) store(p.rows_RD, r);
      }
    }
  }
  __syncwarp();
}

// Own slots first, then those of the peers in the order in which they arrive.
__device__ void ReceiveRows(const ExchangeRowsParams& p, uint32_t completed, ReceiveShared& s) {
  const ExchangeControl& c = p.control;
  const int i = static_cast<int>(threadIdx.x), lane = i % 32, peers = c.size - 1;
  int32_t* row = s.row[i / 32];
  if (i == 0) s.ok = 1;
  __syncthreads();
  if (p.build) {
    if (!ReadTables(p, completed, s)) return;
  } else if (i < c.size) {
    s.slots[i] = p.recv_count_P[i];
  }
  __syncthreads();
  const Share share(static_cast<int>(blockIdx.x) - p.send_blocks, p.receive_blocks);
  for (int slot = share.first * kGroup; slot < s.slots[c.rank]; slot += share.step * kGroup) {
    ExpandGroup(p, s, row, c.rank, slot);
  }
  const int64_t units = (p.num_tokens + kGroup - 1) / kGroup * peers;
  for (int64_t unit = share.first; unit < units; unit += share.step) {
    // The rank before this one sends here first.
    const int source = (c.rank + c.size - 1 - static_cast<int>(unit % peers)) % c.size;
    const int slot = static_cast<int>(unit / peers) * kGroup;
    if (slot >= s.slots[source]) continue;
    if (p.flag_from[source] != nullptr) {
      bool there = true;
      if (lane == 0) {
        there = WaitFor(p.flag_from[source] + slot / kRowTile, completed + 1, c,
                        ExchangeFailure::kRowsLate, source);
      }
      if (!AllArrived(there)) return;
    }
    ExpandGroup(p, s, row, source, slot);
  }
}

__global__ void __launch_bounds__(kExchangeThreads) RowsKernel(ExchangeRowsParams p) {
  __shared__ ReceiveShared shared;
  cudaGridDependencySynchronize();
  const uint32_t completed = LoadVolatile(p.control.state);
  const bool failed = LoadVolatile(p.control.error) != 0;
  if (failed) {
    if (p.build && blockIdx.x == 0 && p.receive_blocks > 0) {
      for (int l = threadIdx.x; l <= p.num_local_experts; l += kExchangeThreads) {
        p.expert_offset_L1[l] = 0;
      }
    }
    return;
  }
  if (static_cast<int>(blockIdx.x) < p.send_blocks) {
    SendTiles(p, completed);
  } else {
    ReceiveRows(p, completed, shared);
  }
  if (p.receive_blocks > 0) FinishExchange(p.control, completed + 1);
}

}  // namespace

cudaError_t ExchangeRows(const ExchangeRowsParams& p, cudaStream_t stream) {
  if (p.hidden <= 0 || p.hidden % kVec != 0 || p.num_tokens < 0 || p.top_k <= 0 ||
      p.top_k > kMaxExchangeTopK || p.control.size <= 0 || p.control.size > kMaxExchangeRanks ||
      p.num_local_experts * p.control.size > kMaxExchangeExperts ||
      p.send_blocks + p.receive_blocks <= 0) {
    return cudaErrorInvalidValue;
  }
  // Behind a plan its blocks may come while that still runs; they wait for it to end.
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(p.send_blocks + p.receive_blocks);
  config.blockDim = dim3(kExchangeThreads);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = p.build ? 1 : 0;
  return cudaLaunchKernelEx(&config, RowsKernel, p);
}

}  // namespace switchyard::kernels
