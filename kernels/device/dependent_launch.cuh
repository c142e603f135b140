// Launches whose start overlaps the end of the kernel before them on the stream.
//
// A kernel that LaunchBehind starts calls WaitForPrevious before it touches memory. What comes
// behind it, by any launch, sees its results as ever.
#pragma once

#include <cuda_runtime.h>

#include <utility>

namespace switchyard::kernels {

// Returns when all that was enqueued before is done; the next kernel may then take the places that
// this one leaves.
__device__ __forceinline__ void WaitForPrevious() {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
}

// shared_bytes: of dynamic shared memory.
template <typename... Params, typename... Args>
cudaError_t LaunchBehind(void (*kernel)(Params...), dim3 grid, dim3 block, size_t shared_bytes,
                         cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

}  // namespace switchyard::kernels
