// Causal attention within documents, with grouped query heads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace switchyard::trainer::ops {

struct AttentionShape {
  int64_t num_heads = 0;     // H
  int64_t num_kv_heads = 0;  // G: H / G query heads share one key/value head
  int64_t head_dim = 0;      // C; scores are scaled by C^-1/2
};

// query [T, H C], key and value [T, G C] with any row stride. document_offset: int32 [documents +
// 1] on the host, from 0 to T; a position attends to the positions of its document up to itself.
// Writes out [T, H C] and log_sum_exp, float32 [T, H], whose order is private to forward and
// backward on CUDA. Scores and sums in float32. On CUDA the documents are those of the batch
// uploaded last (device_ops.h).
void CausalAttention(const AttentionShape& shape, const at::Tensor& query, const at::Tensor& key,
                     const at::Tensor& value, const at::Tensor& document_offset, at::Tensor out,
                     at::Tensor log_sum_exp);

// Writes the gradients of query, key and value, shaped like them.
void CausalAttentionBackward(const AttentionShape& shape, const at::Tensor& grad_out,
                             const at::Tensor& query, const at::Tensor& key,
                             const at::Tensor& value, const at::Tensor& out,
                             const at::Tensor& log_sum_exp, const at::Tensor& document_offset,
                             at::Tensor grad_query, at::Tensor grad_key, at::Tensor grad_value);

}  // namespace switchyard::trainer::ops
