#include "worker/trainer/cuda/dense_gemms.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <cublasLt.h>

#include "worker/trainer/cuda/cuda_check.h"

namespace switchyard::trainer::cuda {
namespace {

void CheckBlas(cublasStatus_t status, const char* call) {
  TORCH_CHECK(status == CUBLAS_STATUS_SUCCESS, call, ": ", cublasLtGetStatusString(status));
}

void CheckMatrix(const at::Tensor& t, int64_t rows, int64_t columns) {
  TORCH_CHECK(t.scalar_type() == at::kBFloat16 && t.is_contiguous() && t.dim() == 2 &&
                  t.size(0) == rows && t.size(1) == columns,
              "a product's matrix must be contiguous bfloat16 [", rows, ", ", columns, "], not ",
              t.scalar_type(), " ", t.sizes());
}

}  // namespace

// cuBLAS counts columns first: it computes out^T [N, M] = b a^T + c^T.
struct DenseGemms::Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t b = nullptr, a = nullptr, out = nullptr;
  cublasLtMatmulAlgo_t algorithm{};
};

void DenseGemms::DeletePlan::operator()(Plan* plan) const {
  for (cublasLtMatrixLayout_t layout : {plan->b, plan->a, plan->out}) {
    if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
  }
  if (plan->product != nullptr) cublasLtMatmulDescDestroy(plan->product);
  delete plan;
}

void DenseGemms::AddProduct(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                            const at::Tensor& out) {
  const int64_t m = a.size(0), k = a.size(1), n = b.size(0);
  CheckMatrix(a, m, k);
  CheckMatrix(b, n, k);
  CheckMatrix(c, m, n);
  CheckMatrix(out, m, n);
  const cublasLtHandle_t handle = at::cuda::getCurrentCUDABlasLtHandle();
  std::unique_ptr<Plan, DeletePlan>& plan = plans_[{m, n, k}];
  if (plan == nullptr) {
    std::unique_ptr<Plan, DeletePlan> made(new Plan);
    CheckBlas(cublasLtMatmulDescCreate(&made->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
              "cublasLtMatmulDescCreate");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    CheckBlas(cublasLtMatmulDescSetAttribute(made->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                             &transposed, sizeof(transposed)),
              "CUBLASLT_MATMUL_DESC_TRANSA");
    const auto layout = [](cublasLtMatrixLayout_t* to, int64_t rows, int64_t columns) {
      CheckBlas(cublasLtMatrixLayoutCreate(to, CUDA_R_16BF, rows, columns, rows),
                "cublasLtMatrixLayoutCreate");
    };
    layout(&made->b, k, n);
    layout(&made->a, k, m);
    layout(&made->out, n, m);
    // No workspace: no split sums.
    cublasLtMatmulPreference_t preference = nullptr;
    CheckBlas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle, made->product, made->b, made->a, made->out,
                                       made->out, preference, 1, &found, &count);
    cublasLtMatmulPreferenceDestroy(preference);
    CheckBlas(status, "cublasLtMatmulAlgoGetHeuristic");
    TORCH_CHECK(count == 1, "cuBLAS has no kernel for a product of ", m, " x ", n, " x ", k);
    made->algorithm = found.algo;
    plan = std::move(made);
  }
  const float one = 1.0f;
  CheckBlas(cublasLtMatmul(handle, plan->product, &one, b.data_ptr(), plan->b, a.data_ptr(),
                           plan->a, &one, c.data_ptr(), plan->out, out.data_ptr(), plan->out,
                           &plan->algorithm, nullptr, 0, Stream()),
            "cublasLtMatmul");
}

}  // namespace switchyard::trainer::cuda
