#include "worker/trainer/cuda/dense_gemms.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <c10/util/Exception.h>
#include <cublas_v2.h>

namespace switchyard::trainer::cuda {

int Multiprocessors() { return at::cuda::getCurrentDeviceProperties()->multiProcessorCount; }

void LimitDenseGemms(int limit) {
  // ATen keeps one handle a thread and device.
  const cublasStatus_t status = cublasSetSmCountTarget(at::cuda::getCurrentCUDABlasHandle(), limit);
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, "cublasSetSmCountTarget(", limit,
              "): ", cublasGetStatusString(status));
}

}  // namespace switchyard::trainer::cuda
