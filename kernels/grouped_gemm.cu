#include <algorithm>
#include <utility>

#include "kernels/grouped_gemm.h"
#include "kernels/grouped_gemm_internal.h"

namespace switchyard::kernels {
namespace {

using internal::GroupedArrays;
using internal::GroupedProblem;

constexpr int kThreads = 256;

struct PreparedCall {
  GroupedArrays arrays;
  GroupedGemmShape shape;
  const nv_bfloat16* a;
  const nv_bfloat16* b;
  char* out;
};

struct PrepareArgs {
  PreparedCall calls[kMaxGroupedGemmCalls];
  const int32_t* offset_L1;
  int64_t max_rows;
};

__global__ void __launch_bounds__(kThreads)
    PrepareKernel(const __grid_constant__ PrepareArgs args) {
  const PreparedCall& call = args.calls[blockIdx.x];
  const GroupedArrays& to = call.arrays;
  const int32_t n = call.shape.out_features, k = call.shape.in_features;
  const GroupedProduct product = call.shape.product;
  const bool forward = product == GroupedProduct::kForward;
  const bool gradient = product == GroupedProduct::kWeightGradient;
  const int64_t out_bytes = call.shape.output == GroupedOutput::kBfloat16 ? 2 : 4;
  const int64_t width_a = forward ? k : n;    // of a's rows
  const int64_t width_out = forward ? n : k;  // of out's rows
  const int64_t matrix = static_cast<int64_t>(n) * k;
  for (int l = threadIdx.x; l < call.shape.num_experts; l += kThreads) {
    const int64_t begin = min(static_cast<int64_t>(args.offset_L1[l]), args.max_rows);
    const int64_t end = min(static_cast<int64_t>(args.offset_L1[l + 1]), args.max_rows);
    const int32_t rows = static_cast<int32_t>(max(end - begin, int64_t{0}));
    to.stride_a[l] = width_a;
    to.stride_b[l] = k;
    to.stride_out[l] = width_out;
    if (!gradient) {
      to.problem[l] = {rows, forward ? n : k, forward ? k : n};
      to.a[l] = call.a + begin * width_a;
      to.b[l] = call.b + l * matrix;
      to.out[l] = call.out + begin * width_out * out_bytes;
      continue;
    }
    to.out[l] = call.out + l * matrix * out_bytes;
    if (rows > 0) {
      to.problem[l] = {n, k, rows};
      to.a[l] = call.a + begin * n;
      to.b[l] = call.b + begin * k;
    } else if (call.shape.output == GroupedOutput::kFloat32Add) {
      to.problem[l] = {0, 0, 1};  // no tile
      to.a[l] = call.a;
      to.b[l] = call.b;
    } else {
      // A sum over no rows never clears the accumulators: one row of zeros instead.
      to.problem[l] = {n, k, 1};
      to.a[l] = to.zeros;
      to.b[l] = to.zeros;
    }
  }
  if (gradient) {
    for (int i = threadIdx.x; i < max(n, k); i += kThreads) to.zeros[i] = __float2bfloat16_rn(0.0f);
  }
}

bool Aligned(const void* p, uintptr_t bytes) {
  return p != nullptr && reinterpret_cast<uintptr_t>(p) % bytes == 0;
}

}  // namespace

namespace internal {

int64_t LayOutWorkspace(const GroupedGemmShape& shape, void* workspace, GroupedArrays* arrays) {
  char* const base = static_cast<char*>(workspace);
  int64_t used = 0;
  const auto take = [&](int64_t bytes) {
    const int64_t at = used;
    used += (bytes + 255) / 256 * 256;
    return base + at;
  };
  const int64_t experts = shape.num_experts;
  arrays->tensor_maps = take(kTensorMapBytes);
  arrays->problem = reinterpret_cast<GroupedProblem*>(take(experts * sizeof(GroupedProblem)));
  arrays->a = reinterpret_cast<const nv_bfloat16**>(take(experts * 8));
  arrays->b = reinterpret_cast<const nv_bfloat16**>(take(experts * 8));
  arrays->out = reinterpret_cast<void**>(take(experts * 8));
  arrays->stride_a = reinterpret_cast<int64_t*>(take(experts * 8));
  arrays->stride_b = reinterpret_cast<int64_t*>(take(experts * 8));
  arrays->stride_out = reinterpret_cast<int64_t*>(take(experts * 8));
  arrays->zeros = reinterpret_cast<nv_bfloat16*>(
      take(2 * int64_t{std::max(shape.out_features, shape.in_features)}));
  return used;
}

}  // namespace internal

std::string GroupedGemmShapeError(const GroupedGemmShape& shape) {
  const auto multiple_of_8 = [](const char* name, int32_t value) {
    if (value > 0 && value % 8 == 0) return std::string();
    return std::string("grouped GEMM: ") + name + " is " + std::to_string(value) +
           "; it must be a positive multiple of 8 (rows are read in 16-byte units)";
  };
  if (shape.num_experts <= 0) {
    return "grouped GEMM: num_experts is " + std::to_string(shape.num_experts) +
           "; it must be positive";
  }
  if (std::string error = multiple_of_8("out_features", shape.out_features); !error.empty()) {
    return error;
  }
  if (std::string error = multiple_of_8("in_features", shape.in_features); !error.empty()) {
    return error;
  }
  if (shape.output != GroupedOutput::kBfloat16 &&
      shape.product != GroupedProduct::kWeightGradient) {
    return "grouped GEMM: float32 output exists for weight gradients only; use bfloat16";
  }
  return "";
}

int64_t GroupedGemmWorkspaceBytes(const GroupedGemmShape& shape) {
  GroupedArrays unused;
  return internal::LayOutWorkspace(shape, nullptr, &unused);
}

GroupedGemm::GroupedGemm() = default;
GroupedGemm::~GroupedGemm() = default;
GroupedGemm::GroupedGemm(GroupedGemm&&) noexcept = default;
GroupedGemm& GroupedGemm::operator=(GroupedGemm&&) noexcept = default;

cudaError_t GroupedGemm::Build(const GroupedGemmShape& shape, void* workspace) {
  if (!GroupedGemmShapeError(shape).empty() || !Aligned(workspace, 256)) {
    return cudaErrorInvalidValue;
  }
  int device = 0, sms = 0, major = 0;
  for (const cudaError_t error :
       {cudaGetDevice(&device),
        cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device),
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)}) {
    if (error != cudaSuccess) return error;
  }
  if (major != 9) return cudaErrorNoKernelImageForDevice;  // built for Hopper alone
  sms = std::min(sms, internal::kMaxSms);
  GroupedArrays arrays;
  internal::LayOutWorkspace(shape, workspace, &arrays);
  const int experts = shape.num_experts;
  switch (shape.product) {
    case GroupedProduct::kForward:
      launcher_ = internal::MakeForward(arrays, experts, sms);
      break;
    case GroupedProduct::kTransposed:
      launcher_ = internal::MakeTransposed(arrays, experts, sms);
      break;
    case GroupedProduct::kWeightGradient:
      launcher_ = shape.output == GroupedOutput::kBfloat16
                      ? internal::MakeWeightGradient(arrays, experts, sms)
                      : internal::MakeWeightGradientFloat32(
                            arrays, experts, sms, shape.output == GroupedOutput::kFloat32Add);
      break;
  }
  if (launcher_ == nullptr) return cudaErrorInvalidConfiguration;
  shape_ = shape;
  workspace_ = workspace;
  return cudaSuccess;
}

cudaError_t GroupedGemm::Run(cudaStream_t stream, int sm_limit) const {
  if (launcher_ == nullptr || sm_limit < 0) return cudaErrorInvalidValue;
  const int sms = launcher_->num_sms;
  return launcher_->Launch(sm_limit == 0 ? sms : std::min(sm_limit, sms), stream);
}

cudaError_t PrepareGroupedGemms(const PrepareGroupedGemmsParams& params, cudaStream_t stream) {
  if (params.num_calls < 1 || params.num_calls > kMaxGroupedGemmCalls || params.max_rows < 0 ||
      params.offset_L1 == nullptr) {
    return cudaErrorInvalidValue;
  }
  PrepareArgs args{};
  args.offset_L1 = params.offset_L1;
  args.max_rows = params.max_rows;
  for (int i = 0; i < params.num_calls; ++i) {
    const GroupedGemmCall& call = params.calls[i];
    if (call.gemm == nullptr || call.gemm->workspace() == nullptr || !Aligned(call.a, 16) ||
        !Aligned(call.b, 16) || !Aligned(call.out, 16) ||
        call.gemm->shape().num_experts != params.calls[0].gemm->shape().num_experts) {
      return cudaErrorInvalidValue;
    }
    PreparedCall& prepared = args.calls[i];
    prepared.shape = call.gemm->shape();
    internal::LayOutWorkspace(prepared.shape, call.gemm->workspace(), &prepared.arrays);
    prepared.a = call.a;
    prepared.b = call.b;
    prepared.out = static_cast<char*>(call.out);
  }
  PrepareKernel<<<params.num_calls, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace switchyard::kernels
