// cuDNN attention for the shapes of a run: one plan for micro-batches of whole sequences, one for
// packed documents, built when first needed (about a second).
#pragma once

#include <cstdint>
#include <map>
#include <memory>

#include "kernels/attention.h"
#include "worker/trainer/data/batch.h"
#include "worker/trainer/model/arena.h"
#include "worker/trainer/ops/attention.h"

namespace switchyard::trainer::cuda {

class AttentionPlans {
 public:
  explicit AttentionPlans(bool deterministic) : deterministic_(deterministic) {}

  // Chooses the plan for the batch's documents and writes what it needs of them. `offset`: they,
  // int32 [documents + 1] on the device. Throws c10::Error when cuDNN cannot do the shape.
  void Select(const ops::AttentionShape& shape, const Batch& host, const int32_t* offset);
  // The plan selected last, its documents (null for whole sequences), and scratch memory of its
  // own for the backward: the deterministic one of packed documents wants more than is planned for
  // all others (common/model/packed_attention.h). Null where the caller's is enough.
  kernels::Attention& plan() const { return *selected_->attention; }
  const void* documents() const {
    return selected_->documents.defined() ? selected_->documents.data_ptr() : nullptr;
  }
  void* own_scratch();
  // Makes the scratch memory of its own at least so large.
  void ReserveScratch(int64_t bytes);

 private:
  struct Plan {
    std::unique_ptr<kernels::Attention> attention;
    at::Tensor documents;  // uint8
    int64_t own_scratch_bytes = 0;
  };
  struct Key {
    int64_t tokens, sequence_length;
    int32_t max_documents;  // 0: whole sequences
    auto operator<=>(const Key&) const = default;
  };

  bool deterministic_;
  std::map<Key, Plan> plans_;
  Plan* selected_ = nullptr;
  at::Tensor scratch_;  // uint8, for the largest plan that needed it
};

// Strides of the buffers that the engine passes: queries and keys are neighbours in one row, values
// are part of the projections' rows.
kernels::AttentionOptions AttentionLayout(const ops::AttentionShape& shape);

}  // namespace switchyard::trainer::cuda
