#include "worker/trainer/cuda/batch_upload.h"

#include <ATen/ops/empty.h>

#include <cstring>

#include "worker/trainer/cuda/cuda_check.h"

namespace switchyard::trainer::cuda {
namespace {

constexpr int64_t kAlignment = 64;

int64_t Aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// Ids, targets, positions: int64; valid: bool; documents: int32, at most one a token, and the end.
int64_t BytesFor(int64_t tokens) {
  return 3 * Aligned(8 * tokens) + Aligned(tokens) + Aligned(4 * (tokens + 1));
}

}  // namespace

BatchUpload::BatchUpload(int64_t max_tokens) {
  const auto bytes = at::TensorOptions().dtype(at::kByte);
  for (Side& side : sides_) {
    side.pinned = at::empty({BytesFor(max_tokens)}, bytes.pinned_memory(true));
    side.device = at::empty({BytesFor(max_tokens)}, bytes.device(at::kCUDA));
    Check(cudaEventCreateWithFlags(&side.copied, cudaEventDisableTiming), "cudaEventCreate");
  }
}

BatchUpload::~BatchUpload() {
  for (Side& side : sides_) cudaEventDestroy(side.copied);
}

Batch BatchUpload::Upload(const Batch& host) {
  Side& side = sides_[next_];
  next_ = 1 - next_;
  Check(cudaEventSynchronize(side.copied), "cudaEventSynchronize");
  Batch batch = host;
  int64_t used = 0;
  for (at::Tensor* t : {&batch.input_id_T, &batch.target_T, &batch.position_T, &batch.valid_T,
                        &batch.document_offset}) {
    const auto bytes = static_cast<int64_t>(t->nbytes());
    TORCH_CHECK(used + bytes <= side.pinned.numel(), "a batch of ",
                host.num_sequences * host.sequence_length, " tokens is larger than was prepared");
    std::memcpy(static_cast<std::byte*>(side.pinned.data_ptr()) + used, t->const_data_ptr(), bytes);
    *t = side.device.narrow(0, used, bytes).view(t->scalar_type());
    used += Aligned(bytes);
  }
  Check(cudaMemcpyAsync(side.device.data_ptr(), side.pinned.data_ptr(), used,
                        cudaMemcpyHostToDevice, Stream()),
        "cudaMemcpyAsync");
  Check(cudaEventRecord(side.copied, Stream()), "cudaEventRecord");
  return batch;
}

}  // namespace switchyard::trainer::cuda
