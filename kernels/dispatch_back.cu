#include <algorithm>

#include "kernels/device/exchange.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/dispatch.h"

namespace switchyard::kernels {
namespace {

constexpr int kUnroll = 4;  // 16-byte loads in flight of a lane, a row

__device__ int Tiles(int slots) { return (slots + kExchangeTile - 1) / kExchangeTile; }

__device__ __forceinline__ uint4 Round8(const float (&v)[kVec]) {
  uint4 raw;
  uint32_t* words = reinterpret_cast<uint32_t*>(&raw);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return raw;
}

// sum[u] = the sum of vectors first + 32 * u of the rows that `row` (a lane's own: choice `lane` of
// the slot) names, in choice order.
__device__ __forceinline__ void SumRows(const nv_bfloat16* rows_RD, int hidden, int first,
                                        int32_t row, float (&sum)[kUnroll][kVec]) {
  const int vectors = hidden / kVec;
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum[u][j] = 0.0f;
  }
  uint32_t choices = __ballot_sync(~0u, row >= 0);
  while (choices != 0) {
    // Two rows at a time, added in order.
    const int a = __ffs(choices) - 1;
    choices &= choices - 1;
    const int b = choices != 0 ? __ffs(choices) - 1 : a;
    const bool two = choices != 0;
    choices &= choices - 1;
    const uint4* row_a = reinterpret_cast<const uint4*>(
        rows_RD + static_cast<int64_t>(__shfl_sync(~0u, row, a)) * hidden);
    const uint4* row_b = reinterpret_cast<const uint4*>(
        rows_RD + static_cast<int64_t>(__shfl_sync(~0u, row, b)) * hidden);
    uint4 raw_a[kUnroll], raw_b[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (first + 32 * u < vectors) raw_a[u] = __ldcs(row_a + first + 32 * u);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (two && first + 32 * u < vectors) raw_b[u] = __ldcs(row_b + first + 32 * u);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (first + 32 * u >= vectors) continue;
      float v[kVec];
      Unpack8(raw_a[u], v);
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum[u][j] += v[j];
      if (!two) continue;
      Unpack8(raw_b[u], v);
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum[u][j] += v[j];
    }
  }
}

// Sums and pushes tiles of slots, all owners of one tile before the next tile.
__device__ void SendTiles(const ExchangeBackParams& p, uint32_t completed) {
  const ExchangeControl& c = p.control;
  const int lane = static_cast<int>(threadIdx.x) % 32, peers = c.size - 1, k = p.top_k;
  const int vectors = p.hidden / kVec;
  const int64_t units = static_cast<int64_t>(peers) * Tiles(static_cast<int>(p.num_tokens));
  const int64_t step = static_cast<int64_t>(kExchangeWarps) * p.send_blocks;
  uint32_t free_ranks = 0;  // which have taken the exchange before
  for (int64_t unit = threadIdx.x / 32 * p.send_blocks + blockIdx.x; unit < units; unit += step) {
    const int to = (c.rank + 1 + static_cast<int>(unit % peers)) % c.size;
    const int first_slot = static_cast<int>(unit / peers) * kExchangeTile;
    const int end = min(first_slot + kExchangeTile, p.recv_count_P[to]);
    if (first_slot >= end) continue;
    if ((free_ranks >> to & 1u) == 0 && c.taken_from[to] != nullptr) {
      bool taken = true;
      if (lane == 0) {
        taken = WaitFor(c.taken_from[to], completed, c, ExchangeFailure::kTakenLate, to);
      }
      if (!__all_sync(~0u, taken)) return;
      free_ranks |= 1u << to;
    }
    for (int slot = first_slot; slot < end; ++slot) {
      int32_t row = -1;
      if (lane < k) row = p.row_of_choice_PTK[(to * p.num_tokens + slot) * k + lane];
      if (p.grad_weight_R != nullptr && lane < k) {
        p.back_weight_to[to][static_cast<int64_t>(slot) * k + lane] =
            row >= 0 ? p.grad_weight_R[row] : 0.0f;
      }
      uint4* there =
          reinterpret_cast<uint4*>(p.back_to[to] + static_cast<int64_t>(slot) * p.hidden);
      for (int first = lane; first - lane < vectors; first += 32 * kUnroll) {
        float sum[kUnroll][kVec];
        SumRows(p.rows_RD, p.hidden, first, row, sum);
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          if (first + 32 * u < vectors) there[first + 32 * u] = Round8(sum[u]);
        }
      }
    }
    if (p.flag_to[to] == nullptr) continue;
    __syncwarp();
    if (lane == 0) StoreReleaseSystem(p.flag_to[to] + unit / peers, completed + 1);
  }
}

// Adds the parts of tokens; each waits only for the tiles that hold its own.
__device__ void ReceiveTokens(const ExchangeBackParams& p, uint32_t completed) {
  const ExchangeControl& c = p.control;
  const int lane = static_cast<int>(threadIdx.x) % 32, k = p.top_k;
  const int block = static_cast<int>(blockIdx.x) - p.send_blocks;
  const int vectors = p.hidden / kVec;
  const int64_t step = static_cast<int64_t>(kExchangeWarps) * p.receive_blocks;
  for (int64_t token = threadIdx.x / 32 * p.receive_blocks + block; token < p.num_tokens;
       token += step) {
    const int32_t slot = lane < c.size ? p.slot_PT[lane * p.num_tokens + token] : -1;
    const int32_t own_slot = __shfl_sync(~0u, slot, c.rank);
    int32_t row = -1;
    if (own_slot >= 0 && lane < k) {
      row = p.row_of_choice_PTK[(c.rank * p.num_tokens + own_slot) * k + lane];
    }
    bool waited = false;
    for (int first = lane; first - lane < vectors; first += 32 * kUnroll) {
      float sum[kUnroll][kVec];
      SumRows(p.rows_RD, p.hidden, first, row, sum);
      uint4 own[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) own[u] = Round8(sum[u]);
      if (!waited) {
        const bool there = slot < 0 || lane == c.rank || p.flag_from[lane] == nullptr ||
                           WaitFor(p.flag_from[lane] + slot / kExchangeTile, completed + 1, c,
                                   ExchangeFailure::kBackLate, lane);
        if (!__all_sync(~0u, there)) return;
        waited = true;
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
        for (int j = 0; j < kVec; ++j) sum[u][j] = 0.0f;
      }
      for (int rank = 0; rank < c.size; ++rank) {
        const int32_t at = __shfl_sync(~0u, slot, rank);
        if (at < 0) continue;
        const uint4* from = nullptr;
        if (rank != c.rank) {
          from = reinterpret_cast<const uint4*>(p.back_from[rank] +
                                                static_cast<int64_t>(at) * p.hidden);
        }
        uint4 raw[kUnroll];
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          raw[u] = own[u];
          if (from != nullptr && first + 32 * u < vectors) raw[u] = __ldcg(from + first + 32 * u);
        }
#pragma unroll
        for (int u = 0; u < kUnroll; ++u) {
          float v[kVec];
          Unpack8(raw[u], v);
#pragma unroll
          for (int j = 0; j < kVec; ++j) sum[u][j] += v[j];
        }
      }
      uint4* y = reinterpret_cast<uint4*>(p.y_TD + token * p.hidden);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (first + 32 * u < vectors) y[first + 32 * u] = Round8(sum[u]);
      }
    }
    if (p.grad_weight_TK != nullptr && lane < k) {
      const int32_t place = p.place_TK[token * k + lane];
      float grad = 0.0f;
      if (place >= 0) {
        const int rank = static_cast<int>(place / p.num_tokens);
        const int64_t at = place % p.num_tokens * k + lane;
        grad = rank == c.rank ? p.grad_weight_R[row] : __ldcg(p.back_weight_from[rank] + at);
      }
      p.grad_weight_TK[token * k + lane] = grad;
    }
  }
}

__global__ void __launch_bounds__(kExchangeThreads) BackKernel(ExchangeBackParams p) {
  const uint32_t completed = LoadVolatile(p.control.state);
  if (LoadVolatile(p.control.error) != 0) return;
  if (static_cast<int>(blockIdx.x) < p.send_blocks) {
    SendTiles(p, completed);
  } else {
    ReceiveTokens(p, completed);
  }
  if (p.receive_blocks > 0) FinishExchange(p.control, completed + 1);
}

}  // namespace

cudaError_t ExchangeBack(const ExchangeBackParams& p, cudaStream_t stream) {
  if (p.hidden <= 0 || p.hidden % kVec != 0 || p.num_tokens < 0 || p.top_k <= 0 ||
      p.top_k > kMaxExchangeTopK || p.control.size <= 0 || p.control.size > kMaxExchangeRanks ||
      p.send_blocks + p.receive_blocks <= 0) {
    return cudaErrorInvalidValue;
  }
  BackKernel<<<p.send_blocks + p.receive_blocks, kExchangeThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
