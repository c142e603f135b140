// Sum of squares of a flat range, for the global gradient norm.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace switchyard::kernels {

struct SumOfSquaresParams {
  const nv_bfloat16* x;    // [n] bfloat16, or null when x_float32 is given; 16-byte aligned
  const float* x_float32;  // [n], or null
  int64_t numel;           // n, multiple of 8
  double*
      sum;  // device scalar; += with `accumulate`, else overwritten. NaN and infinity carry over
  bool accumulate;
};

int64_t SumOfSquaresWorkspaceBytes();
// Reads the range once. Deterministic; float32 within a thread, float64 between threads.
cudaError_t SumOfSquares(const SumOfSquaresParams& params, void* workspace, cudaStream_t stream);

}  // namespace switchyard::kernels
