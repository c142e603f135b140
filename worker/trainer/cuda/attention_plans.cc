#include "worker/trainer/cuda/attention_plans.h"

#include <ATen/ops/empty.h>

#include <span>
#include <string>

#include "common/model/packed_attention.h"
#include "common/model/rank_memory.h"
#include "worker/trainer/cuda/cuda_check.h"

namespace switchyard::trainer::cuda {
namespace {

// Whether the documents are the sequences.
bool WholeSequences(const Batch& host) {
  if (host.document_offset.numel() != host.num_sequences + 1) return false;
  const int32_t* offset = host.document_offset.const_data_ptr<int32_t>();
  for (int64_t i = 0; i <= host.num_sequences; ++i) {
    if (offset[i] != i * host.sequence_length) return false;
  }
  return true;
}

// What a plan holds: doubled until it is enough, so that a run needs few plans. Documents that are
// not there cost little time, but scratch memory where the backward is deterministic.
DocumentClass DocumentsOf(const Batch& host, bool deterministic) {
  const std::span<const int32_t> offsets(host.document_offset.const_data_ptr<int32_t>(),
                                         static_cast<size_t>(host.document_offset.numel()));
  if (deterministic) return ClassOfDocuments(offsets, host.sequence_length);
  int64_t capacity = 64 * host.num_sequences;
  while (capacity < static_cast<int64_t>(offsets.size()) - 1) capacity *= 2;
  return {capacity, host.sequence_length};
}

}  // namespace

kernels::AttentionOptions AttentionLayout(const ops::AttentionShape& shape) {
  const int64_t query = shape.num_heads * shape.head_dim, key = shape.num_kv_heads * shape.head_dim;
  kernels::AttentionOptions options;
  options.num_heads = static_cast<int32_t>(shape.num_heads);
  options.num_kv_heads = static_cast<int32_t>(shape.num_kv_heads);
  options.head_dim = static_cast<int32_t>(shape.head_dim);
  options.query_stride = options.key_stride = query + key;
  options.value_stride = query + 2 * key;
  options.grad_key_stride = options.grad_value_stride = key;
  options.out_stride = query;
  return options;
}

void AttentionPlans::Select(const ops::AttentionShape& shape, const Batch& host,
                            const int32_t* offset) {
  const bool whole = WholeSequences(host);
  const DocumentClass documents =
      whole ? DocumentClass{0, host.sequence_length} : DocumentsOf(host, deterministic_);
  const Key key = {host.num_sequences * host.sequence_length, documents.length,
                   static_cast<int32_t>(documents.documents)};
  Plan& plan = plans_[key];
  if (plan.attention == nullptr) {
    kernels::AttentionOptions options = AttentionLayout(shape);
    options.num_tokens = key.tokens;
    options.sequence_length = key.sequence_length;
    options.max_documents = key.max_documents;
    options.deterministic = deterministic_;
    std::string error;
    plan.attention = kernels::Attention::Create(options, &error);
    TORCH_CHECK(plan.attention != nullptr, "attention: ", error);
    const auto bytes = at::TensorOptions().dtype(at::kByte).device(at::kCUDA);
    const int64_t wanted = plan.attention->backward_workspace_bytes();
    if (wanted > kAttentionScratch * key.tokens * shape.num_heads * shape.head_dim) {
      plan.own_scratch_bytes = wanted;
    }
    if (plan.attention->documents_bytes() > 0) {
      plan.documents = at::empty({plan.attention->documents_bytes()}, bytes);
    }
  }
  selected_ = &plan;
  if (!whole) {
    Check(plan.attention->FillDocuments(offset,
                                        static_cast<int32_t>(host.document_offset.numel() - 1),
                                        plan.documents.data_ptr(), Stream()),
          "FillDocuments");
  }
}

void* AttentionPlans::own_scratch() {
  if (selected_->own_scratch_bytes == 0) return nullptr;
  ReserveScratch(selected_->own_scratch_bytes);
  return scratch_.data_ptr();
}

void AttentionPlans::ReserveScratch(int64_t bytes) {
  if (scratch_.defined() && scratch_.numel() >= bytes) return;
  scratch_ = at::Tensor();
  scratch_ = at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(at::kCUDA));
}

}  // namespace switchyard::trainer::cuda
