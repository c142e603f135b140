// Brings tokens to the ranks of their experts and the results back.
//
// One row travels per (token, destination rank), never per expert. The receiver builds its
// expert-sorted list of R rows itself. Router weights are applied by the caller to the expert
// activations (SwiGLU), so combine is a plain sum: a rank's rows of one token are summed in
// float32, sent back as one row, and the owner adds the at most `ep` partial rows, in rank order,
// to the residual. Local version (ep = 1): the executable specification. Window version: symmetric
// windows. State between the calls is the returned Routing, never a member.
//
// Order of calls of one MoE layer: Dispatch, Combine | DispatchGradient, CombineGradient. A layer
// that did not save the rows has them brought once more before its backward, by Redispatch; one
// that did not save the routing either calls Dispatch again. All ranks of the ep group make the
// same calls. On CUDA nothing waits for the device: calls are enqueued on the current stream, and
// the number of rows stays there.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "worker/trainer/model/arena.h"

namespace switchyard::trainer {

// Where the rows of one dispatch lie; saved by the layer for its backward.
struct Routing {
  int64_t max_rows = 0;         // rows there may be: R on CPU, an upper bound of it on CUDA
  at::Tensor expert_offset_L1;  // int32 [L + 1]: local expert l has rows offset[l] ..
                                // offset[l+1]-1; on the device of the rows; the last entry is R
  at::Tensor weight_R;          // float32 [max_rows]: router weight of each row
  std::vector<at::Tensor> private_tensors;  // the dispatcher's own bookkeeping
};

class TokenDispatcher {
 public:
  virtual ~TokenDispatcher() = default;

  // x_TD: tokens; expert_TK: int64 (CUDA: int32) [T, K], global expert ids, -1 for a padding token
  // (not routed); weight_TK: float32 [T, K]. The same arguments give the same bytes. Writes the
  // routed rows, sorted by local expert and within an expert by (source rank, token), to the first
  // R rows of rows_RD, which must hold MaxRows(T). What has to stay until the backward is taken
  // from `saved`.
  virtual Routing Dispatch(const at::Tensor& x_TD, const at::Tensor& expert_TK,
                           const at::Tensor& weight_TK, Arena& saved, at::Tensor rows_RD) = 0;
  // The rows of that Dispatch once more; x_TD as then.
  virtual void Redispatch(const at::Tensor& x_TD, const Routing& routing, at::Tensor rows_RD) = 0;
  // y_TD = residual_TD + sum over each token's rows of rows_RD (already weighted), added in float32
  // and rounded once. Padding tokens get the residual. y_TD may be residual_TD.
  virtual void Combine(const at::Tensor& rows_RD, const Routing& routing,
                       const at::Tensor& residual_TD, at::Tensor y_TD) = 0;
  // Gradient of Combine: grad_rows_RD[r] = grad_y_TD[token of r].
  virtual void DispatchGradient(const at::Tensor& grad_y_TD, const Routing& routing,
                                at::Tensor grad_rows_RD) = 0;
  // Gradient of Dispatch: grad_x_TD = sum of grad_rows_RD over each token's rows; grad_weight_TK
  // (float32) = grad_weight_R of the row of each choice, 0 for padding.
  virtual void CombineGradient(const at::Tensor& grad_rows_RD, const at::Tensor& grad_weight_R,
                               const Routing& routing, at::Tensor grad_x_TD,
                               at::Tensor grad_weight_TK) = 0;
  // Rows that Dispatch may return for T tokens under the worst routing.
  virtual int64_t MaxRows(int64_t num_tokens) const = 0;
};

// Everything is on this rank. `top_k` experts a token of `num_experts`.
std::unique_ptr<TokenDispatcher> MakeLocalDispatcher(int64_t num_experts, int64_t top_k);

}  // namespace switchyard::trainer
