#include "kernels/attention_documents.h"

namespace switchyard::kernels {
namespace {

__global__ void FillKernel(AttentionDocumentsLayout layout, int64_t array_ints,
                           const int32_t* document_offset, int32_t num_documents, int32_t* base) {
  for (int b = threadIdx.x; b <= layout.max_documents; b += blockDim.x) {
    const int32_t begin = document_offset[min(b, num_documents)];
    const int32_t end = document_offset[min(b + 1, num_documents)];
    if (b < layout.max_documents) base[b] = end - begin;
    for (int i = 0; i < static_cast<int>(RaggedTensor::kCount); ++i) {
      base[array_ints * (1 + i) + b] = static_cast<int32_t>(begin * layout.row_stride[i]);
    }
  }
}

}  // namespace

cudaError_t FillAttentionDocuments(const AttentionDocumentsLayout& layout,
                                   const int32_t* document_offset, int32_t num_documents,
                                   void* base, cudaStream_t stream) {
  if (num_documents < 0 || num_documents > layout.max_documents) return cudaErrorInvalidValue;
  FillKernel<<<1, 256, 0, stream>>>(layout, layout.array_ints(), document_offset, num_documents,
                                    static_cast<int32_t*>(base));
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
