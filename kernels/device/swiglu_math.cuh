// One element of SwiGLU with the router weight folded in: the same arithmetic whether it runs alone
// or at the end of a product.
#pragma once

namespace switchyard::kernels {

__device__ __forceinline__ float Sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

__device__ __forceinline__ float Swiglu(float gate, float up, float weight) {
  return gate * Sigmoid(gate) * up * weight;
}

}  // namespace switchyard::kernels
