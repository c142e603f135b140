// Expert-parallel exchange of token rows between GPUs that map each other's memory: one row per
// (token, destination rank), in slots that deterministic prefix counts give.
//
// Three kernels: DispatchPlan (who goes where; choices are pushed to the ranks of their experts),
// ExchangeRows (rows are pushed; the receiver expands them into its expert-sorted list),
// ExchangeBack (a rank's rows of a token are summed, pushed to the owner, and added by it in rank
// order). Every "to" pointer is memory of a peer, every "from" pointer own memory that the peer
// writes. Without flags the same kernels work on staging buffers that something else carries
// (NCCL): same bytes. Nothing waits for the host; waits for peers are bounded and end in a sticky
// error word.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

inline constexpr int kMaxExchangeRanks = 8;      // P of an ep group
inline constexpr int kMaxExchangeExperts = 512;  // E of the whole group
inline constexpr int kMaxExchangeTopK = 32;      // K
inline constexpr int kRowTile = 8;               // slots under one flag of rows
inline constexpr int kBackTile = 4;              // slots under one flag of the way back,
inline constexpr int kBackColumns = 1024;        // and columns
inline constexpr int64_t kMaxExchangeTokens = int64_t{1} << 22;
// A table of choices: rows of each local expert, and at [kMaxExchangeExperts] the slots.
inline constexpr int kExchangeTableInts = kMaxExchangeExperts + 16;

// Reason in the error word: word = reason << 8 | peer. 0: none.
enum class ExchangeFailure : uint32_t {
  kNone = 0,
  kChoicesLate = 1,  // the peer did not send its choices within the limit
  kRowsLate = 2,     // ... its rows
  kBackLate = 3,     // ... its partial sums
  kTakenLate = 4,    // the peer did not take the exchange before within the limit
  kBadCount = 5,     // the peer sent more slots than there are tokens
  kBadExpert = 6,    // an expert id of this rank is not below E
};

// Of one direction (rows, or back) of one rank. An exchange is complete when everything that came
// has been consumed; the receiver then says so to its peers, who may overwrite it only then.
struct ExchangeControl {
  uint32_t* state;       // device [2], zero at first: exchanges completed, blocks done
  uint32_t* error;       // device, sticky; zero at first
  uint32_t* host_error;  // the same word again, in mapped host memory; null for none
  uint64_t limit_ns;     // of every wait
  const uint32_t* taken_from[kMaxExchangeRanks];  // exchanges that the peer has consumed; null
  uint32_t* taken_to[kMaxExchangeRanks];          // this rank's word at the peer; null
  int32_t rank, size;                             // of this rank in the group; P
};

struct DispatchPlanParams {
  ExchangeControl control;   // of the rows
  const int32_t* expert_TK;  // [T, K]; experts of a token are distinct; -1 for padding
  const float* weight_TK;    // [T, K]
  int32_t* slot_PT;          // [P, T]: slot of the token at each rank, -1 when it does not go there
  int32_t* token_of_slot_PT;              // [P, T]: the inverse; the first send_count are written
  int32_t* place_TK;                      // [T, K]: rank of the expert * T + slot there, or -1
  int32_t* send_count_P;                  // [P]: slots used at each rank
  int32_t* table_to[kMaxExchangeRanks];   // [kExchangeTableInts]
  int32_t* choice_to[kMaxExchangeRanks];  // [slots, K]: packed local expert and rank, or -1
  float* weight_to[kMaxExchangeRanks];    // [slots, K]; valid where a choice is
  uint32_t* ready_to[kMaxExchangeRanks];  // set when the table is there; null for no flag
  uint64_t* scratch;                      // device, DispatchPlanScratchBytes, zero at first
  int64_t num_tokens;                     // T, the same on every rank
  int32_t num_experts;                    // E, a multiple of P
  int32_t top_k;                          // K
};

int64_t DispatchPlanScratchBytes(int64_t num_tokens, int32_t num_experts, int32_t ranks);
// Latency-bound. Deterministic.
cudaError_t DispatchPlan(const DispatchPlanParams& params, cudaStream_t stream);

// Sends when send_blocks > 0, receives when receive_blocks > 0.
struct ExchangeRowsParams {
  ExchangeControl control;                          // of the rows
  const nv_bfloat16* x_TD;                          // [T, D], 16-byte aligned as all rows
  const int32_t* token_of_slot_PT;                  // of the plan
  const int32_t* send_count_P;                      // of the plan
  nv_bfloat16* rows_to[kMaxExchangeRanks];          // [slots, D]; own entry unused
  uint32_t* flag_to[kMaxExchangeRanks];             // [tiles of slots]; null for no flags
  const nv_bfloat16* rows_from[kMaxExchangeRanks];  // [slots, D]; own entry unused: x
  const uint32_t* flag_from[kMaxExchangeRanks];     // [tiles of slots]; null for no flags
  nv_bfloat16* keep[kMaxExchangeRanks];  // [slots, D]: copies of what peers sent; null for none
  // Read when `build`: the routing is built from the choices, else it is as built before.
  const int32_t* table_from[kMaxExchangeRanks];
  const int32_t* choice_from[kMaxExchangeRanks];
  const float* weight_from[kMaxExchangeRanks];
  const uint32_t* ready_from[kMaxExchangeRanks];  // null for no flag
  int32_t* recv_count_P;       // [P]: slots that each rank uses here; own ones included
  int32_t* row_of_choice_PTK;  // [P, T, K]: row of each choice of a slot, -1 when it is elsewhere
  int32_t* expert_offset_L1;   // [L + 1]; [L] = R
  float* weight_R;             // [R]
  nv_bfloat16* rows_RD;        // [R, D], sorted by expert, then source rank, then token
  int64_t num_tokens;          // T
  int32_t hidden;              // D, multiple of 8
  int32_t top_k;               // K
  int32_t num_local_experts;   // L
  int32_t send_blocks, receive_blocks;
  bool build;
};

// Writes 2 * R * D bytes, moves 2 * D per slot over the link. Deterministic. After an error the
// list is empty (offsets are zero) when it was built here, and rows are undefined.
cudaError_t ExchangeRows(const ExchangeRowsParams& params, cudaStream_t stream);

// Sends when send_blocks > 0, receives when receive_blocks > 0.
struct ExchangeBackParams {
  ExchangeControl control;           // of the way back
  const nv_bfloat16* rows_RD;        // [R, D]
  const int32_t* row_of_choice_PTK;  // as ExchangeRows built it
  const int32_t* recv_count_P;
  const float* grad_weight_R;                // [R], pushed alongside; null for none
  nv_bfloat16* back_to[kMaxExchangeRanks];   // [slots, D]; own entry unused
  float* back_weight_to[kMaxExchangeRanks];  // [slots, K]
  uint32_t* flag_to[kMaxExchangeRanks];      // [tiles of slots]; null for no flags
  const nv_bfloat16* back_from[kMaxExchangeRanks];
  const float* back_weight_from[kMaxExchangeRanks];
  const uint32_t* flag_from[kMaxExchangeRanks];
  const int32_t* slot_PT;   // of the plan
  const int32_t* place_TK;  // of the plan
  // y[t] = residual[t] + sum in rank order and float32 of each rank's part: the sum in choice order
  // and float32 of its rows, rounded to bfloat16.
  const nv_bfloat16* residual_TD;  // [T, D]; null for none; may alias y
  nv_bfloat16* y_TD;               // [T, D]
  float* grad_weight_TK;           // [T, K], 0 for padding; null for none
  int64_t num_tokens;              // T
  int32_t hidden;                  // D, multiple of 8
  int32_t top_k;                   // K
  int32_t send_blocks, receive_blocks;
};

// Reads 2 * R * D bytes, moves 2 * D per slot over the link. Deterministic.
cudaError_t ExchangeBack(const ExchangeBackParams& params, cudaStream_t stream);

}  // namespace switchyard::kernels
