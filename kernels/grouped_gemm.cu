#include <algorithm>
#include <cute/arch/copy_sm90_desc.hpp>
#include <utility>

#include "kernels/device/dependent_launch.cuh"
#include "kernels/grouped_gemm.h"
#include "kernels/grouped_gemm_internal.h"

namespace switchyard::kernels {
namespace {

using internal::GroupedArrays;
using internal::GroupedProblem;
using internal::TensorMap;

constexpr int kThreads = 128;

struct PreparedCall {
  GroupedArrays arrays;
  GroupedGemmShape shape;
  const nv_bfloat16* a;
  const nv_bfloat16* b;
  char* out;
  SwigluOperands swiglu;
  TensorMap map_templates[internal::kNumOperands];
};

struct PrepareArgs {
  PreparedCall calls[kMaxGroupedGemmCalls];
  const int32_t* offset_L1;
  int64_t max_rows;
};

// A matrix in memory: `rows` of `width` elements, one after the other. Width 0: the map's template
// has all but the address.
struct Matrix {
  const void* data;
  uint32_t width, rows, element_bytes;
};

// The whole warp writes one map.
__device__ void WriteMap(const TensorMap& from, const Matrix& matrix, TensorMap& shared,
                         TensorMap* to) {
  const int lane = threadIdx.x % 32;
  reinterpret_cast<uint32_t*>(&shared)[lane] = reinterpret_cast<const uint32_t*>(&from)[lane];
  __syncwarp();
  auto& map = reinterpret_cast<cute::TmaDescriptor&>(shared);
  if (lane == 0) {
    cute::tma_descriptor_replace_addr_in_shared_mem(map, matrix.data);
    if (matrix.width > 0) {
      const uint64_t pitch = uint64_t{matrix.width} * matrix.element_bytes;
      cute::tma_descriptor_replace_dims_strides_in_shared_mem(
          map, {matrix.width, max(matrix.rows, 1u), 1, 1, 1}, {0, pitch, 0, 0, 0});
    }
  }
  __syncwarp();
  cute::tma_descriptor_cp_fence_release(reinterpret_cast<cute::TmaDescriptor*>(to), map);
}

__device__ uint32_t RowsOf(const PrepareArgs& args, int l) {
  const int64_t begin = min(static_cast<int64_t>(args.offset_L1[l]), args.max_rows);
  const int64_t end = min(static_cast<int64_t>(args.offset_L1[l + 1]), args.max_rows);
  return static_cast<uint32_t>(max(end - begin, int64_t{0}));
}

// How many experts come before l by falling number of rows; called by the whole block.
__device__ int PlaceByRows(const PrepareArgs& args, int l, uint32_t rows, int experts) {
  int before = 0;
  for (int first = 0; first < experts; first += kThreads) {
    const int other = first + static_cast<int>(threadIdx.x);
    const uint32_t its = other < experts ? RowsOf(args, other) : 0;
    before += __syncthreads_count(other < experts && (its > rows || (its == rows && other < l)));
  }
  return before;
}

// A block an expert of a call (x, y), a warp an operand.
__global__ void __launch_bounds__(kThreads)
    PrepareKernel(const __grid_constant__ PrepareArgs args) {
  __shared__ TensorMap scratch[internal::kNumOperands];
  WaitForPrevious();
  const PreparedCall& call = args.calls[blockIdx.y];
  const GroupedArrays& to = call.arrays;
  const uint32_t n = call.shape.out_features, k = call.shape.in_features;
  const bool forward_swiglu = call.shape.product == GroupedProduct::kForwardSwiglu;
  const bool forward = call.shape.product == GroupedProduct::kForward || forward_swiglu;
  const bool gradient = call.shape.product == GroupedProduct::kWeightGradient;
  const bool adds = call.shape.output == GroupedOutput::kFloat32Add;
  if (gradient && blockIdx.x == 0) {
    for (int i = threadIdx.x; i < max(n, k); i += kThreads) to.zeros[i] = __float2bfloat16_rn(0.0f);
  }
  const int operand = threadIdx.x / 32;
  const int l = blockIdx.x;
  const int64_t begin = min(static_cast<int64_t>(args.offset_L1[l]), args.max_rows);
  const uint32_t rows = RowsOf(args, l);
  // The longest sums first: the tiles of a round are then of about one length.
  const int place = gradient ? PlaceByRows(args, l, rows, call.shape.num_experts) : l;
  // A sum over no rows never clears the accumulators: one row of zeros instead, or no tile.
  const bool no_sum = gradient && rows == 0;
  const uint32_t sum_rows = no_sum ? 1 : rows;
  const uint32_t out_bytes = call.shape.output == GroupedOutput::kBfloat16 ? 2 : 4;
  const int64_t matrix = int64_t{n} * k;
  const uint32_t width_a = forward ? k : n, width_out = forward ? n : k;
  char* const out = call.out + (gradient ? l * matrix : begin * width_out) * out_bytes;
  TensorMap* map = nullptr;
  Matrix view{};
  if (operand == internal::kOperandA) {
    map = to.input_maps + 2 * place;
    view = {no_sum ? to.zeros : call.a + begin * width_a, width_a, sum_rows, 2};
  } else if (operand == internal::kOperandB) {
    map = to.input_maps + 2 * place + 1;
    if (gradient) {
      view = {no_sum ? to.zeros : call.b + begin * k, k, sum_rows, 2};
    } else {
      view = {call.b + l * matrix, forward_swiglu ? 0 : k, n, 2};
    }
  } else if (operand == internal::kOperandC) {
    map = to.output_maps + 2 * place + 1;
  } else {
    map = to.output_maps + 2 * place;
    if (threadIdx.x % 32 == 0) {
      if (no_sum && adds) {
        to.problem[place] = {0, 0, 1};
      } else if (gradient) {
        to.problem[place] = {static_cast<int>(n), static_cast<int>(k), static_cast<int>(sum_rows)};
      } else {
        to.problem[place] = {static_cast<int>(rows), static_cast<int>(width_out),
                             static_cast<int>(width_a)};
      }
      to.destinations[place] = {out, call.swiglu.h_RF + begin * (n / 2),
                                call.swiglu.row_weight_R + begin};
    }
  }
  if (operand == internal::kOperandC || operand == internal::kOperandD) {
    if (!adds) return;  // only the end of a tile that adds uses maps
    view = {out, width_out, gradient ? n : rows, out_bytes};
  }
  WriteMap(call.map_templates[operand], view, scratch[operand], map);
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
  arrays->problem = reinterpret_cast<GroupedProblem*>(take(experts * sizeof(GroupedProblem)));
  arrays->input_maps = reinterpret_cast<TensorMap*>(take(2 * experts * sizeof(TensorMap)));
  arrays->output_maps = reinterpret_cast<TensorMap*>(take(2 * experts * sizeof(TensorMap)));
  arrays->destinations =
      reinterpret_cast<GroupedDestination*>(take(experts * sizeof(GroupedDestination)));
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
  if (shape.product == GroupedProduct::kForwardSwiglu && shape.out_features % 32 != 0) {
    return "grouped GEMM: out_features is " + std::to_string(shape.out_features) +
           "; with SwiGLU it must be a multiple of 32 (gate and up by 16 rows)";
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
  GroupedArrays arrays;
  internal::LayOutWorkspace(shape, workspace, &arrays);
  const int experts = shape.num_experts;
  switch (shape.product) {
    case GroupedProduct::kForward:
      launcher_ = internal::MakeForward(arrays, experts, sms);
      break;
    case GroupedProduct::kForwardSwiglu:
      launcher_ = internal::MakeForwardSwiglu(shape, arrays, sms);
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
  const int sms = sm_limit == 0 ? launcher_->num_sms : std::min(sm_limit, launcher_->num_sms);
  return launcher_->Launch(sms, stream);
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
    if (call.gemm == nullptr || call.gemm->launcher() == nullptr || !Aligned(call.a, 16) ||
        !Aligned(call.b, 16) || !Aligned(call.out, 16) ||
        (call.gemm->shape().product == GroupedProduct::kForwardSwiglu &&
         (call.swiglu.row_weight_R == nullptr || !Aligned(call.swiglu.h_RF, 16))) ||
        call.gemm->shape().num_experts != params.calls[0].gemm->shape().num_experts) {
      return cudaErrorInvalidValue;
    }
    PreparedCall& prepared = args.calls[i];
    prepared.shape = call.gemm->shape();
    internal::LayOutWorkspace(prepared.shape, call.gemm->workspace(), &prepared.arrays);
    prepared.a = call.a;
    prepared.b = call.b;
    prepared.out = static_cast<char*>(call.out);
    prepared.swiglu = call.swiglu;
    std::copy_n(call.gemm->launcher()->map_templates, internal::kNumOperands,
                prepared.map_templates);
  }
  const unsigned blocks = params.calls[0].gemm->shape().num_experts;
  static_assert(kThreads / 32 == internal::kNumOperands);
  return LaunchBehind(PrepareKernel, dim3(blocks, params.num_calls), dim3(kThreads), 0, stream,
                      args);
}

}  // namespace switchyard::kernels
