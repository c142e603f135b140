// A CUTLASS grouped GEMM as a GroupedGemmLauncher: which template, and how its arguments are
// filled.
//
// Ping-pong over tiles of 128 x 192 x 64 in clusters of one: measured best on skewed routings, and
// the only one that runs beside kernels that hold multiprocessors (docs/performance.md).
#pragma once

#include <cutlass/cutlass.h>
#include <cutlass/device_kernel.h>

#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/operations.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/group_array_problem_shape.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <memory>
#include <type_traits>

#include "kernels/grouped_gemm_internal.h"

namespace switchyard::kernels::internal {

using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;
using Bfloat16 = cutlass::bfloat16_t;

using GroupedTile = cute::Shape<cute::_128, cute::_192, cute::_64>;
using GroupedCluster = cute::Shape<cute::_1, cute::_1, cute::_1>;
using GroupedProblemShape = cutlass::gemm::GroupProblemShape<cute::Shape<int, int, int>>;
static_assert(sizeof(GroupedProblemShape::UnderlyingProblemShape) == sizeof(GroupedProblem));

// LayoutA of A [M, K], LayoutB of B [K, N]. ElementC is void, or float to add to the output.
template <class LayoutA, class LayoutB, class ElementC, class ElementD>
struct GroupedTemplate {
  static constexpr int kAlignD = 16 / sizeof(ElementD);
  using Fusion = cutlass::epilogue::fusion::LinearCombination<ElementD, float, ElementC, float>;
  using Epilogue = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, GroupedTile, GroupedCluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, ElementC, RowMajor*, kAlignD,
      ElementD, RowMajor*, kAlignD, cutlass::epilogue::PtrArrayTmaWarpSpecializedPingpong,
      Fusion>::CollectiveOp;
  using Mainloop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Bfloat16, LayoutA*, 8, Bfloat16,
      LayoutB*, 8, float, GroupedTile, GroupedCluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelPtrArrayTmaWarpSpecializedPingpong>::CollectiveOp;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<GroupedProblemShape, Mainloop, Epilogue>;
  static_assert(sizeof(typename Kernel::InternalStrideA) == sizeof(int64_t) &&
                sizeof(typename Kernel::InternalStrideB) == sizeof(int64_t) &&
                sizeof(typename Kernel::InternalStrideD) == sizeof(int64_t));
};

template <class Kernel>
class CutlassLauncher final : public GroupedGemmLauncher {
 public:
  // Null when the device refuses the kernel.
  static std::unique_ptr<GroupedGemmLauncher> Make(const typename Kernel::Arguments& arguments,
                                                   void* tensor_maps) {
    if (!Kernel::can_implement(arguments) ||
        Kernel::get_workspace_size(arguments) > static_cast<size_t>(kTensorMapBytes) ||
        cudaFuncSetAttribute(cutlass::device_kernel<Kernel>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             Kernel::SharedStorageSize) != cudaSuccess) {
      return nullptr;
    }
    auto launcher = std::make_unique<CutlassLauncher>();
    launcher->params_ = Kernel::to_underlying_arguments(arguments, tensor_maps);
    launcher->num_sms = arguments.hw_info.sm_count;
    return launcher;
  }

  cudaError_t Launch(int sms, cudaStream_t stream) const override {
    // Tiles go along M first: then the scheduler counts blocks along x.
    cutlass::device_kernel<Kernel>
        <<<dim3(sms, 1, 1), Kernel::get_block_shape(), Kernel::SharedStorageSize, stream>>>(
            params_);
    return cudaGetLastError();
  }

 private:
  typename Kernel::Params params_{};
};

// The arguments that every template takes from the workspace's arrays; the epilogue's `thread` is
// the caller's.
template <class Kernel>
typename Kernel::Arguments GroupedArguments(const GroupedArrays& arrays, int num_experts,
                                            int num_sms) {
  using ElementC = typename Kernel::ElementC;
  using ElementD = typename Kernel::ElementD;
  typename Kernel::Arguments arguments;
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
  arguments.problem_shape = {
      num_experts, reinterpret_cast<GroupedProblemShape::UnderlyingProblemShape*>(arrays.problem),
      nullptr};
  arguments.mainloop = {reinterpret_cast<const Bfloat16**>(arrays.a),
                        reinterpret_cast<typename Kernel::StrideA>(arrays.stride_a),
                        reinterpret_cast<const Bfloat16**>(arrays.b),
                        reinterpret_cast<typename Kernel::StrideB>(arrays.stride_b)};
  auto& epilogue = arguments.epilogue;
  if constexpr (!std::is_void_v<ElementC>) {
    epilogue.ptr_C = static_cast<const ElementC**>(static_cast<void*>(arrays.out));
    epilogue.dC = reinterpret_cast<typename Kernel::StrideC>(arrays.stride_out);
  }
  epilogue.ptr_D = reinterpret_cast<ElementD**>(arrays.out);
  epilogue.dD = reinterpret_cast<typename Kernel::StrideD>(arrays.stride_out);
  arguments.hw_info.sm_count = num_sms;
  arguments.scheduler.raster_order = decltype(arguments.scheduler.raster_order)::AlongM;
  return arguments;
}

template <class Template>
std::unique_ptr<GroupedGemmLauncher> MakePlain(const GroupedArrays& arrays, int num_experts,
                                               int num_sms, bool add) {
  using Kernel = typename Template::Kernel;
  auto arguments = GroupedArguments<Kernel>(arrays, num_experts, num_sms);
  arguments.epilogue.thread.alpha = 1.0f;
  arguments.epilogue.thread.beta = add ? 1.0f : 0.0f;
  return CutlassLauncher<Kernel>::Make(arguments, arrays.tensor_maps);
}

}  // namespace switchyard::kernels::internal
