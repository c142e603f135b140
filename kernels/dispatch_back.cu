#include <algorithm>

#include "kernels/device/exchange.cuh"
#include "kernels/device/vec.cuh"
#include "kernels/dispatch.h"

namespace switchyard::kernels {
namespace {

constexpr int kUnroll = kBackColumns / (32 * kVec);  // 16-byte loads of a lane, a row
constexpr int kRowsInFlight = 3;

__device__ int Tiles(int slots) { return (slots + kBackTile - 1) / kBackTile; }

__device__ int Chunks(int hidden) { return (hidden + kBackColumns - 1) / kBackColumns; }

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
    // Several rows are read at a time and added in order.
    uint4 raw[kRowsInFlight][kUnroll];
    const int rows = min(kRowsInFlight, __popc(choices));
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      if (r >= rows) break;
      const uint4* from = reinterpret_cast<const uint4*>(
          rows_RD + static_cast<int64_t>(__shfl_sync(~0u, row, __ffs(choices) - 1)) * hidden);
      choices &= choices - 1;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (first + 32 * u < vectors) raw[r][u] = __ldcs(from + first + 32 * u);
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsInFlight; ++r) {
      if (r >= rows) break;
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (first + 32 * u >= vectors) continue;
        float v[kVec];
        Unpack8(raw[r][u], v);
#pragma unroll
        for (int j = 0; j < kVec; ++j) sum[u][j] += v[j];
      }
    }
  }
}

// Sums and pushes (tile of slots, owner, chunk of columns) by warp.
__device__ void SendTiles(const ExchangeBackParams& p, uint32_t completed) {
  const ExchangeControl& c = p.control;
  const int lane = static_cast<int>(threadIdx.x) % 32, peers = c.size - 1, k = p.top_k;
  const int vectors = p.hidden / kVec, chunks = Chunks(p.hidden);
  const int64_t units =
      static_cast<int64_t>(chunks) * peers * Tiles(static_cast<int>(p.num_tokens));
  const int64_t step = static_cast<int64_t>(kExchangeWarps) * p.send_blocks;
  uint32_t free_ranks = 0;  // which have taken the exchange before
  for (int64_t unit = threadIdx.x / 32 * p.send_blocks + blockIdx.x; unit < units; unit += step) {
    const int chunk = static_cast<int>(unit % chunks);
    const int to = (c.rank + 1 + static_cast<int>(unit / chunks % peers)) % c.size;
    const int tile = static_cast<int>(unit / chunks / peers);
    const int first_slot = tile * kBackTile;
    const int slots = min(kBackTile, p.recv_count_P[to] - first_slot);
    if (slots <= 0) continue;
    int32_t row[kBackTile];
#pragma unroll
    for (int i = 0; i < kBackTile; ++i) {
      row[i] = -1;
      if (i < slots && lane < k) {
        row[i] = p.row_of_choice_PTK[(to * p.num_tokens + first_slot + i) * k + lane];
      }
    }
    if ((free_ranks >> to & 1u) == 0 && c.taken_from[to] != nullptr) {
      bool taken = true;
      if (lane == 0) {
        taken = WaitFor(c.taken_from[to], completed, c, ExchangeFailure::kTakenLate, to);
      }
      if (!AllArrived(taken)) return;
      free_ranks |= 1u << to;
    }
    const int first = chunk * 32 * kUnroll + lane;
#pragma unroll
    for (int i = 0; i < kBackTile; ++i) {
      if (i >= slots) break;
      const int64_t slot = first_slot + i;
      if (p.grad_weight_R != nullptr && chunk == 0 && lane < k) {
        p.back_weight_to[to][slot * k + lane] = row[i] >= 0 ? p.grad_weight_R[row[i]] : 0.0f;
      }
      float sum[kUnroll][kVec];
      SumRows(p.rows_RD, p.hidden, first, row[i], sum);
      uint4* there = reinterpret_cast<uint4*>(p.back_to[to] + slot * p.hidden);
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (first + 32 * u < vectors) there[first + 32 * u] = Round8(sum[u]);
      }
    }
    if (p.flag_to[to] == nullptr) continue;
    __syncwarp();
    if (lane == 0) StoreReleaseSystem(p.flag_to[to] + tile * chunks + chunk, completed + 1);
  }
}

// Where the parts of a token lie: its slot at rank `lane`, the row of its choice `lane` here.
struct TokenParts {
  int32_t slot = -1, row = -1;

  __device__ TokenParts(const ExchangeBackParams& p, int64_t token) {
    const int lane = static_cast<int>(threadIdx.x) % 32, rank = p.control.rank;
    if (token >= p.num_tokens) return;
    if (lane < p.control.size) slot = p.slot_PT[lane * p.num_tokens + token];
    const int32_t own = __shfl_sync(~0u, slot, rank);
    if (own >= 0 && lane < p.top_k) {
      row = p.row_of_choice_PTK[(rank * p.num_tokens + own) * p.top_k + lane];
    }
  }
};

__device__ void ReceiveWeights(const ExchangeBackParams& p, int64_t token, int32_t row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane >= p.top_k) return;
  const int32_t place = p.place_TK[token * p.top_k + lane];
  float grad = 0.0f;
  if (place >= 0) {
    const int rank = static_cast<int>(place / p.num_tokens);
    const int64_t at = place % p.num_tokens * p.top_k + lane;
    grad = rank == p.control.rank ? p.grad_weight_R[row] : __ldcg(p.back_weight_from[rank] + at);
  }
  p.grad_weight_TK[token * p.top_k + lane] = grad;
}

// Adds the parts of (token, chunk of columns) by warp; each waits only for what it needs.
__device__ void ReceiveTokens(const ExchangeBackParams& p, uint32_t completed) {
  const ExchangeControl& c = p.control;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int vectors = p.hidden / kVec, chunks = Chunks(p.hidden);
  const int64_t step = static_cast<int64_t>(kExchangeWarps) * p.receive_blocks;
  const int64_t units = p.num_tokens * chunks;
  int64_t unit = threadIdx.x / 32 * p.receive_blocks + blockIdx.x - p.send_blocks;
  TokenParts next(p, unit / chunks);
  for (; unit < units; unit += step) {
    const TokenParts parts = next;
    next = TokenParts(p, (unit + step) / chunks);  // long before it is needed
    const int64_t token = unit / chunks;
    const int chunk = static_cast<int>(unit % chunks), first = chunk * 32 * kUnroll + lane;
    float sum[kUnroll][kVec];
    SumRows(p.rows_RD, p.hidden, first, parts.row, sum);
    uint4 own[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      own[u] = Round8(sum[u]);
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum[u][j] = 0.0f;
      if (p.residual_TD != nullptr && first + 32 * u < vectors) {  // read while parts arrive
        Load8(p.residual_TD + token * p.hidden + (first + 32 * u) * kVec, sum[u]);
      }
    }
    const bool there = parts.slot < 0 || lane == c.rank || p.flag_from[lane] == nullptr ||
                       WaitFor(p.flag_from[lane] + parts.slot / kBackTile * chunks + chunk,
                               completed + 1, c, ExchangeFailure::kBackLate, lane);
    if (!AllArrived(there)) return;
    for (int rank = 0; rank < c.size; ++rank) {
      const int32_t at = __shfl_sync(~0u, parts.slot, rank);
      if (at < 0) continue;
      const uint4* from = nullptr;
      if (rank != c.rank) {
        from =
            reinterpret_cast<const uint4*>(p.back_from[rank] + static_cast<int64_t>(at) * p.hidden);
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
    if (p.grad_weight_TK != nullptr && chunk == 0) ReceiveWeights(p, token, parts.row);
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
