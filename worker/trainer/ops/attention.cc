#include "worker/trainer/ops/attention.h"

#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/sum.h>

#include "worker/trainer/ops/device_ops.h"

namespace switchyard::trainer::ops {
namespace {

// Rows [n, G J C] of one document as [G, J, n, C]: key/value heads are the batch, the J query heads
// that share one are its heads.
at::Tensor ByGroup(const at::Tensor& rows, int64_t begin, int64_t end, int64_t groups,
                   int64_t dim) {
  return rows.slice(0, begin, end).unflatten(1, {groups, -1, dim}).permute({1, 2, 0, 3});
}

template <typename Fn>
void ForDocuments(const at::Tensor& document_offset, const Fn& fn) {
  const int32_t* offset = document_offset.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < document_offset.numel(); ++i) {
    if (offset[i] < offset[i + 1]) fn(offset[i], offset[i + 1]);
  }
}

}  // namespace

void CausalAttention(const AttentionShape& shape, const at::Tensor& query, const at::Tensor& key,
                     const at::Tensor& value, const at::Tensor& document_offset, at::Tensor out,
                     at::Tensor log_sum_exp) {
  if (!query.is_cpu()) return Device().CausalAttention(shape, query, key, value, out, log_sum_exp);
  const int64_t groups = shape.num_kv_heads, share = shape.num_heads / groups;
  ForDocuments(document_offset, [&](int64_t begin, int64_t end) {
    const at::Tensor q = ByGroup(query, begin, end, groups, shape.head_dim);
    const at::Tensor k = ByGroup(key, begin, end, groups, shape.head_dim).expand_as(q);
    const at::Tensor v = ByGroup(value, begin, end, groups, shape.head_dim).expand_as(q);
    const auto [y, lse] = at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, /*dropout_p=*/0,
                                                                          /*is_causal=*/true);
    ByGroup(out, begin, end, groups, shape.head_dim).copy_(y);
    log_sum_exp.slice(0, begin, end).unflatten(1, {groups, share}).permute({1, 2, 0}).copy_(lse);
  });
}

void CausalAttentionBackward(const AttentionShape& shape, const at::Tensor& grad_out,
                             const at::Tensor& query, const at::Tensor& key,
                             const at::Tensor& value, const at::Tensor& out,
                             const at::Tensor& log_sum_exp, const at::Tensor& document_offset,
                             at::Tensor grad_query, at::Tensor grad_key, at::Tensor grad_value) {
  if (!query.is_cpu()) {
    return Device().CausalAttentionBackward(shape, grad_out, query, key, value, out, log_sum_exp,
                                            grad_query, grad_key, grad_value);
  }
  const int64_t groups = shape.num_kv_heads, share = shape.num_heads / groups;
  const int64_t dim = shape.head_dim;
  ForDocuments(document_offset, [&](int64_t begin, int64_t end) {
    const at::Tensor q = ByGroup(query, begin, end, groups, dim);
    const at::Tensor k = ByGroup(key, begin, end, groups, dim).expand_as(q);
    const at::Tensor v = ByGroup(value, begin, end, groups, dim).expand_as(q);
    const at::Tensor lse =
        log_sum_exp.slice(0, begin, end).unflatten(1, {groups, share}).permute({1, 2, 0});
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        ByGroup(grad_out, begin, end, groups, dim), q, k, v, ByGroup(out, begin, end, groups, dim),
        lse,
        /*dropout_p=*/0, /*is_causal=*/true);
    ByGroup(grad_query, begin, end, groups, dim).copy_(dq);
    // The gradients of a shared head come once per query head.
    const at::Tensor grad_k = ByGroup(grad_key, begin, end, groups, dim);
    const at::Tensor grad_v = ByGroup(grad_value, begin, end, groups, dim);
    grad_k.copy_(dk.sum(1, /*keepdim=*/true, at::kFloat));
    grad_v.copy_(dv.sum(1, /*keepdim=*/true, at::kFloat));
  });
}

}  // namespace switchyard::trainer::ops
