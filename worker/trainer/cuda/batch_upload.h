// Brings micro-batches to the device: two pinned buffers take turns, each with its place on the
// device. The host is at most two micro-batches ahead by that; with one in a step, where a step is
// enqueued when the one before the last has ended, it never waits.
#pragma once

#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

#include "worker/trainer/data/batch.h"

namespace switchyard::trainer::cuda {

class BatchUpload {
 public:
  explicit BatchUpload(int64_t max_tokens);
  ~BatchUpload();
  BatchUpload(const BatchUpload&) = delete;
  BatchUpload& operator=(const BatchUpload&) = delete;

  // The batch with its tensors on the device (document_offset as well), valid until the next but
  // one call; enqueued on the current stream. Waits only for the copy of the call before the last.
  Batch Upload(const Batch& host);

 private:
  struct Side {
    at::Tensor pinned, device;  // uint8
    cudaEvent_t copied = nullptr;
  };
  std::array<Side, 2> sides_;
  int next_ = 0;
};

}  // namespace switchyard::trainer::cuda
