// A CUTLASS grouped GEMM as a GroupedGemmLauncher: which template, and how its arguments are
// filled.
//
// Ping-pong over tiles of 128 x 192 x 64 in clusters of one: measured best on skewed routings, and
// the only one that runs beside kernels that hold multiprocessors (docs/performance.md).
#pragma once

#include <cutlass/cutlass.h>
#include <cutlass/device_kernel.h>

#include <cstring>
#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/fusion/operations.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/group_array_problem_shape.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <memory>
#include <type_traits>

#include "kernels/device/direct_epilogue.cuh"
#include "kernels/grouped_gemm_internal.h"

namespace switchyard::kernels::internal {

using RowMajor = cutlass::layout::RowMajor;
using ColumnMajor = cutlass::layout::ColumnMajor;
using Bfloat16 = cutlass::bfloat16_t;

using GroupedTile = cute::Shape<cute::_128, cute::_192, cute::_64>;
using GroupedCluster = cute::Shape<cute::_1, cute::_1, cute::_1>;
using GroupedProblemShape = cutlass::gemm::GroupProblemShape<cute::Shape<int, int, int>>;
static_assert(sizeof(GroupedProblemShape::UnderlyingProblemShape) == sizeof(GroupedProblem));
static_assert(cute::size<1>(GroupedTile{}) == kGroupedTileColumns);
static_assert(sizeof(cute::TmaDescriptor) == sizeof(TensorMap));

// CUTLASS's mainloop, except that a block takes the tensor maps that were prepared for an expert
// instead of making its own.
template <class Base>
struct PreparedMainloop : Base {
  using Map = const cute::TmaDescriptor*;

  CUTLASS_DEVICE auto tensormaps_init(const typename Base::Params&,
                                      typename Base::TensorMapStorage&, int32_t, int32_t) {
    return cute::make_tuple(Map{}, Map{});
  }
  template <class ProblemShape>
  CUTLASS_DEVICE void tensormaps_perform_update(typename Base::TensorMapStorage&,
                                                const typename Base::Params& params,
                                                cute::tuple<Map, Map>& maps, const ProblemShape&,
                                                int32_t expert) {
    const Map prepared = static_cast<Map>(params.tensormaps) + 2 * expert;
    cute::get<0>(maps) = prepared;
    cute::get<1>(maps) = prepared + 1;
  }
  CUTLASS_DEVICE void tensormaps_cp_fence_release(typename Base::TensorMapStorage&,
                                                  const cute::tuple<Map, Map>&) {}
};

// The same for its epilogue.
template <class Base>
struct PreparedEpilogue : Base {
  using Base::Base;
  using Map = const cute::TmaDescriptor*;

  CUTLASS_DEVICE auto load_init(const typename Base::Params&, typename Base::TensorMapStorage&,
                                int32_t, int32_t) {
    return cute::make_tuple(Map{});
  }
  CUTLASS_DEVICE auto store_init(const typename Base::Params&, typename Base::TensorMapStorage&,
                                 int32_t, int32_t, int32_t) {
    return cute::make_tuple(Map{});
  }
  template <bool kIsLoad, class ProblemShape>
  CUTLASS_DEVICE void tensormaps_perform_update(typename Base::TensorMapStorage&,
                                                const typename Base::Params& params, Map& map,
                                                const ProblemShape&, int32_t expert, int32_t) {
    map = params.tensormaps + 2 * expert + (kIsLoad ? 1 : 0);
  }
  template <bool kIsLoad>
  CUTLASS_DEVICE void tensormaps_cp_fence_release(typename Base::TensorMapStorage&, Map,
                                                  int32_t = 0) {}
  template <bool kIsLoad>
  CUTLASS_DEVICE void tensormaps_fence_acquire(Map map) {
    if (map != nullptr) cute::tma_descriptor_fence_acquire(map);  // null in warps that do not store
  }
};

// CUTLASS's epilogue by way of shared memory and the TMA unit: 64 x kEpilogueN at a time from
// kStagesD buffers. ElementC is void, or that of the output when it is added to.
template <class ElementC, class ElementD, int kEpilogueN, int kStagesC, int kStagesD>
using StagedEpilogue =
    PreparedEpilogue<typename cutlass::epilogue::collective::detail::Sm90TmaBuilderImpl<
        GroupedTile, cute::Shape<cute::_64, cute::Int<kEpilogueN>>, float, float, ElementC,
        RowMajor*, 16 / sizeof(ElementD), ElementD, RowMajor*, 16 / sizeof(ElementD),
        cutlass::epilogue::fusion::LinearCombination<ElementD, float, ElementC, float>,
        cutlass::epilogue::Sm90PtrArrayTmaWarpSpecialized<
            kStagesC, kStagesD, kEpilogueN / 2, /*ReuseSmemC=*/!std::is_void_v<ElementC>,
            /*DelayTmaStore=*/false, /*NumEpilogueWarpGroups=*/2>>::CollectiveOp>;

// LayoutA of A [M, K], LayoutB of B [K, N].
template <class LayoutA, class LayoutB, class Epilogue_,
          template <class> class Prepared = PreparedMainloop>
struct GroupedTemplate {
  using Epilogue = Epilogue_;
  using Mainloop = Prepared<typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Bfloat16, LayoutA*, 8, Bfloat16,
      LayoutB*, 8, float, GroupedTile, GroupedCluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Epilogue::SharedStorage))>,
      cutlass::gemm::KernelPtrArrayTmaWarpSpecializedPingpong>::CollectiveOp>;
  using Kernel = cutlass::gemm::kernel::GemmUniversal<GroupedProblemShape, Mainloop, Epilogue>;
};

// The values of a tile as `Writer` writes them, from registers.
template <class ElementD, class Writer>
using RegisterEpilogue = DirectEpilogue<StagedEpilogue<void, ElementD, 32, 1, 1>, Writer>;

template <class Kernel>
class CutlassLauncher final : public GroupedGemmLauncher {
 public:
  // Null when the device refuses the kernel. `thread`: the epilogue's arguments.
  static std::unique_ptr<GroupedGemmLauncher> Make(
      const GroupedArrays& arrays, int num_experts, int num_sms,
      const decltype(Kernel::EpilogueArguments::thread)& thread) {
    using ElementC = typename Kernel::ElementC;
    using Shape = GroupedProblemShape::UnderlyingProblemShape;
    typename Kernel::Arguments arguments;
    arguments.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
    arguments.problem_shape = {num_experts, reinterpret_cast<Shape*>(arrays.problem), nullptr};
    arguments.epilogue.thread = thread;
    if constexpr (!std::is_void_v<ElementC>) {  // not read, but a factor asks for it
      arguments.epilogue.ptr_C = reinterpret_cast<const ElementC**>(arrays.output_maps);
    }
    arguments.hw_info.sm_count = num_sms;
    arguments.scheduler.raster_order = decltype(arguments.scheduler.raster_order)::AlongM;
    if (!Kernel::can_implement(arguments) ||
        cudaFuncSetAttribute(cutlass::device_kernel<Kernel>,
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             Kernel::SharedStorageSize) != cudaSuccess) {
      return nullptr;
    }
    auto launcher = std::make_unique<CutlassLauncher>();
    // Any device address does: the maps that it makes here are templates.
    auto& params = launcher->params_;
    params = Kernel::to_underlying_arguments(arguments, arrays.input_maps);
    params.mainloop.tensormaps = arrays.input_maps;
    params.epilogue.tensormaps = reinterpret_cast<cute::TmaDescriptor*>(arrays.output_maps);
    if constexpr (requires { params.epilogue.destinations; }) {
      params.epilogue.destinations = arrays.destinations;
    }
    launcher->num_sms = num_sms;
    const auto keep = [&](GroupedOperand operand, const cute::TmaDescriptor* map) {
      std::memcpy(&launcher->map_templates[operand], map, sizeof(TensorMap));
    };
    keep(kOperandA, params.mainloop.tma_load_a.get_tma_descriptor());
    keep(kOperandB, params.mainloop.tma_load_b.get_tma_descriptor());
    keep(kOperandD, params.epilogue.tma_store_d.get_tma_descriptor());
    if constexpr (!std::is_void_v<ElementC>) {
      keep(kOperandC, params.epilogue.tma_load_c.get_tma_descriptor());
    }
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

template <class Template>
std::unique_ptr<GroupedGemmLauncher> MakePlain(const GroupedArrays& arrays, int num_experts,
                                               int num_sms, bool add = false) {
  using Kernel = typename Template::Kernel;
  decltype(Kernel::EpilogueArguments::thread) thread;
  thread.alpha = 1.0f;
  thread.beta = add ? 1.0f : 0.0f;
  return CutlassLauncher<Kernel>::Make(arrays, num_experts, num_sms, thread);
}

}  // namespace switchyard::kernels::internal
