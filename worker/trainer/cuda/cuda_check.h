// Small helpers of this room: errors of CUDA calls, typed pointers of tensors, the current stream.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

namespace switchyard::trainer::cuda {

// Throws c10::Error that names the call.
inline void Check(cudaError_t error, const char* call) {
  TORCH_CHECK(error == cudaSuccess, call, ": ", cudaGetErrorString(error));
}

inline cudaStream_t Stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

// Of a contiguous tensor; null for an undefined one.
template <typename T>
T* Data(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

inline nv_bfloat16* Bf16(const at::Tensor& tensor) { return Data<nv_bfloat16>(tensor); }

}  // namespace switchyard::trainer::cuda
