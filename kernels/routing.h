// Which row of the expert-sorted list each (token, choice) gets, and moving rows there and back.
//
// Rows are sorted by expert, within an expert by token: no atomics decide an order, so every result
// is bitwise deterministic.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

struct RoutingParams {
  const int32_t* expert_TK;   // [T, K]; experts of one token are distinct; outside [first, first +
                              // L) = not here
  const float* weight_TK;     // [T, K]
  int32_t* expert_offset_L1;  // [L + 1]: exclusive prefix sum of rows; [L] = R
  int32_t* row_of_choice_TK;  // [T, K]: row, or -1
  float* weight_of_row_R;     // [R]
  int64_t num_tokens;         // T
  int32_t first_expert;
  int32_t num_local_experts;  // L, at most 512
  int32_t top_k;              // K, at most 32
};

int64_t RoutingWorkspaceBytes(const RoutingParams& params);
cudaError_t BuildRouting(const RoutingParams& params, void* workspace, cudaStream_t stream);

// rows[row_of_choice[t][k]] = x[t] for choices that have a row. Moves 2 * (R + T) * D bytes.
struct ScatterRowsParams {
  const nv_bfloat16* x_TD;          // [T, D], 16-byte aligned
  const int32_t* row_of_choice_TK;  // [T, K]
  nv_bfloat16* rows_RD;             // [R, D]
  int64_t num_tokens;
  int32_t hidden;  // D, multiple of 8
  int32_t top_k;   // at most 32
};
cudaError_t ScatterRows(const ScatterRowsParams& params, cudaStream_t stream);

// out[t][k] = value_R[row_of_choice[t][k]], 0 where that is -1: what belongs to rows, by choice.
struct GatherChoicesParams {
  const float* value_R;             // [R]
  const int32_t* row_of_choice_TK;  // [T, K]
  float* out_TK;                    // [T, K]
  int64_t num_choices;              // T * K
};
cudaError_t GatherChoices(const GatherChoicesParams& params, cudaStream_t stream);

// y[t] = sum over choices k with row_of_choice[t][k] >= 0 of rows[row], float32 in choice order;
// zero when there is none. With residual_TD [T, D] y = residual + sum, rounded once. Moves
// 2 * (R + T) * D bytes.
struct CombineRowsParams {
  const nv_bfloat16* rows_RD;
  const int32_t* row_of_choice_TK;
  const nv_bfloat16* residual_TD;  // null for none; may alias y
  nv_bfloat16* y_TD;               // [T, D]
  int64_t num_tokens;
  int32_t hidden;  // D, multiple of 8
  int32_t top_k;   // at most 32
};
cudaError_t CombineRows(const CombineRowsParams& params, cudaStream_t stream);

}  // namespace switchyard::kernels
