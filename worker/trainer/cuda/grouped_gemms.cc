#include "worker/trainer/cuda/grouped_gemms.h"

#include <ATen/ops/empty.h>
#include <c10/util/ScopeExit.h>

#include <string>

#include "worker/trainer/cuda/cuda_check.h"

namespace switchyard::trainer::cuda {
namespace {

bool SameBuffers(const kernels::GroupedGemmCall& x, const kernels::GroupedGemmCall& y) {
  return x.a == y.a && x.b == y.b && x.out == y.out &&
         x.swiglu.row_weight_R == y.swiglu.row_weight_R && x.swiglu.h_RF == y.swiglu.h_RF;
}

}  // namespace

GroupedGemms::Entry& GroupedGemms::Find(const kernels::GroupedGemmShape& shape) {
  const auto [it, is_new] = entries_.try_emplace(
      Key(shape.product, shape.output, shape.num_experts, shape.out_features, shape.in_features));
  Entry& entry = it->second;
  if (!is_new) return entry;
  const std::string error = kernels::GroupedGemmShapeError(shape);
  TORCH_CHECK(error.empty(), "expert projection: ", error);
  entry.workspace = at::empty({kernels::GroupedGemmWorkspaceBytes(shape)},
                              at::TensorOptions().dtype(at::kByte).device(at::kCUDA));
  Check(entry.gemm.Build(shape, entry.workspace.data_ptr()), "GroupedGemm::Build");
  return entry;
}

void GroupedGemms::Launch(const std::vector<Entry*>& entries) {
  kernels::PrepareGroupedGemmsParams params{};
  for (const Entry* entry : entries) params.calls[params.num_calls++] = entry->call;
  params.offset_L1 = entries[0]->offset;
  params.max_rows = entries[0]->rows;
  Check(kernels::PrepareGroupedGemms(params, Stream()), "PrepareGroupedGemms");
}

void GroupedGemms::Prepare(const std::function<void()>& calls) {
  prepared_.clear();
  {
    preparing_ = true;
    const auto end = c10::make_scope_exit([this] { preparing_ = false; });
    calls();
  }
  if (!prepared_.empty()) Launch(prepared_);
}

void GroupedGemms::Run(kernels::GroupedProduct product, kernels::GroupedOutput output,
                       const at::Tensor& offset_L1, const at::Tensor& a, const at::Tensor& b,
                       const at::Tensor& out, int64_t out_features, int64_t in_features,
                       const kernels::SwigluOperands& swiglu) {
  Entry& entry = Find({product, output, static_cast<int32_t>(offset_L1.numel() - 1),
                       static_cast<int32_t>(out_features), static_cast<int32_t>(in_features)});
  const kernels::GroupedGemmCall call = {&entry.gemm, Bf16(a), Bf16(b), out.data_ptr(), swiglu};
  const int32_t* const offset = Data<int32_t>(offset_L1);
  const bool ready = entry.call.gemm != nullptr && SameBuffers(entry.call, call) &&
                     entry.offset == offset && entry.rows == a.size(0);
  if (!ready || preparing_) {
    entry.call = call;
    entry.offset = offset;
    entry.rows = a.size(0);
  }
  if (preparing_) {
    TORCH_CHECK(prepared_.size() < kernels::kMaxGroupedGemmCalls, "more than ",
                kernels::kMaxGroupedGemmCalls, " grouped products prepared together");
    prepared_.push_back(&entry);
    TORCH_CHECK(prepared_[0]->offset == entry.offset && prepared_[0]->rows == entry.rows,
                "grouped products prepared together have different rows");
    return;
  }
  if (!ready) Launch({&entry});
  entry.call.gemm = nullptr;
  Check(entry.gemm.Run(Stream()), "GroupedGemm::Run");
}

}  // namespace switchyard::trainer::cuda
