#include "worker/trainer/cuda/grouped_gemms.h"

#include <ATen/ops/empty.h>

#include <string>

#include "worker/trainer/cuda/cuda_check.h"

namespace switchyard::trainer::cuda {

void GroupedGemms::Run(kernels::GroupedProduct product, kernels::GroupedOutput output,
                       const at::Tensor& offset_L1, const at::Tensor& a, const at::Tensor& b,
                       const at::Tensor& out, int64_t out_features, int64_t in_features,
                       const kernels::SwigluOperands& swiglu) {
  const int64_t experts = offset_L1.numel() - 1;
  const auto [it, is_new] =
      entries_.try_emplace(Key(product, output, experts, out_features, in_features));
  Entry& entry = it->second;
  if (is_new) {
    const kernels::GroupedGemmShape shape = {product, output, static_cast<int32_t>(experts),
                                             static_cast<int32_t>(out_features),
                                             static_cast<int32_t>(in_features)};
    const std::string error = kernels::GroupedGemmShapeError(shape);
    TORCH_CHECK(error.empty(), "expert projection: ", error);
    entry.workspace = at::empty({kernels::GroupedGemmWorkspaceBytes(shape)},
                                at::TensorOptions().dtype(at::kByte).device(at::kCUDA));
    Check(entry.gemm.Build(shape, entry.workspace.data_ptr()), "GroupedGemm::Build");
  }
  kernels::PrepareGroupedGemmsParams params{};
  params.calls[0] = {&entry.gemm, Bf16(a), Bf16(b), out.data_ptr(), swiglu};
  params.num_calls = 1;
  params.offset_L1 = Data<int32_t>(offset_L1);
  params.max_rows = a.size(0);
  Check(kernels::PrepareGroupedGemms(params, Stream()), "PrepareGroupedGemms");
  Check(entry.gemm.Run(Stream(), limit_), "GroupedGemm::Run");
}

}  // namespace switchyard::trainer::cuda
