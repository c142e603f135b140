// Lengths and ragged offsets of packed documents as cuDNN's graphs read them.
//
// Arrays of int32, one after another: lengths [B], then element offsets [B + 1] of each tensor
// kind. Documents beyond the last are empty.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

enum class RaggedTensor { kQuery, kKey, kValue, kOut, kStats, kGradKey, kGradValue, kCount };

struct AttentionDocumentsLayout {
  int32_t max_documents = 0;
  int64_t row_stride[static_cast<int>(RaggedTensor::kCount)] = {};

  // Every array begins on 16 bytes.
  int64_t array_ints() const { return (int64_t{max_documents} + 1 + 3) / 4 * 4; }
  int64_t bytes() const {
    return array_ints() * (1 + static_cast<int>(RaggedTensor::kCount)) *
           static_cast<int64_t>(sizeof(int32_t));
  }
  int32_t* lengths(void* base) const { return static_cast<int32_t*>(base); }
  int32_t* offsets(void* base, RaggedTensor tensor) const {
    return static_cast<int32_t*>(base) + array_ints() * (1 + static_cast<int>(tensor));
  }
};

cudaError_t FillAttentionDocuments(const AttentionDocumentsLayout& layout,
                                   const int32_t* document_offset, int32_t num_documents,
                                   void* base, cudaStream_t stream);

}  // namespace switchyard::kernels
