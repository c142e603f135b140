// Causal attention with grouped query heads on cuDNN: whole sequences or packed documents, forward
// and backward.
//
// One object holds the two graphs of one shape; building takes about a second, a call takes
// microseconds of the host, allocates nothing and can be captured. Knows nothing of torch.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

namespace switchyard::kernels {

struct AttentionOptions {
  int32_t num_heads = 0;     // H
  int32_t num_kv_heads = 0;  // G, divides H
  int32_t head_dim = 0;      // C: 32, 64 or 128
  int64_t num_tokens = 0;    // T, rows of every buffer
  // Longest run of tokens that attend to each other. Without documents T is a multiple of it.
  int64_t sequence_length = 0;
  // 0: sequences of sequence_length tokens. Otherwise at most so many documents, at places given by
  // AttentionDocuments at every call. One graph serves any packing; empty documents cost little.
  // Then 4 x T x the widest of H x C and H / G x the gradients' strides stays below 2^32.
  int32_t max_documents = 0;
  // The same bytes from run to run in backward too: about an eighth slower, and a workspace of
  // about documents x H x sequence_length^2 x 2 bytes.
  bool deterministic = false;
  // Elements between rows. Queries and keys may share a buffer, so may values and others.
  int64_t query_stride = 0, key_stride = 0, value_stride = 0, out_stride = 0;
  // Gradients: the query's must equal query_stride (cuDNN 9.19 writes garbage otherwise, silently).
  int64_t grad_key_stride = 0, grad_value_stride = 0;
};

// All bfloat16 pointers 16-byte aligned. Scores are scaled by C^-1/2; sums in float32.
struct AttentionBuffers {
  const nv_bfloat16* query = nullptr;  // T rows of H * C
  const nv_bfloat16* key = nullptr;    // T rows of G * C
  const nv_bfloat16* value = nullptr;  // T rows of G * C
  nv_bfloat16* out = nullptr;          // T rows of H * C
  float* log_sum_exp = nullptr;        // T * H; layout private to forward and backward
  const void* documents = nullptr;     // written by FillAttentionDocuments; null without documents
  // Backward only.
  const nv_bfloat16* grad_out = nullptr;  // as out
  nv_bfloat16* grad_query = nullptr;      // as query
  nv_bfloat16* grad_key = nullptr;
  nv_bfloat16* grad_value = nullptr;
};

class Attention {
 public:
  // Null, with `error` set, when the shape is not supported (the text says what of it) or cuDNN
  // refuses it.
  static std::unique_ptr<Attention> Create(const AttentionOptions& options, std::string* error);
  virtual ~Attention() = default;

  virtual int64_t forward_workspace_bytes() const = 0;
  virtual int64_t backward_workspace_bytes() const = 0;
  // Bytes behind AttentionBuffers::documents; 0 without documents.
  virtual int64_t documents_bytes() const = 0;

  // documents from document_offset [num_documents + 1] on the device, from 0 to at most T,
  // num_documents <= max_documents. Once a micro-batch.
  virtual cudaError_t FillDocuments(const int32_t* document_offset, int32_t num_documents,
                                    void* documents, cudaStream_t stream) = 0;
  // False when cuDNN refuses the call. Rows after the last document stay as they are. Not
  // thread-safe.
  virtual bool Forward(const AttentionBuffers& buffers, void* workspace, cudaStream_t stream) = 0;
  virtual bool Backward(const AttentionBuffers& buffers, void* workspace, cudaStream_t stream) = 0;
};

}  // namespace switchyard::kernels
