// Which tiles a block of a grouped GEMM takes when experts are sorted by the length of their sums:
// one of each round of tiles, as CUTLASS deals them out, but every second round from the other end.
//
// With the longest sums first (kernels/grouped_gemm.cu sorts) the tiles of a round fall in length
// from the first block to the last; dealt always the same way round, the first block would be the
// last to end.
#pragma once

#include "kernels/device/cutlass_grouped.cuh"

namespace switchyard::kernels::internal {

// Chooses the scheduler.
struct SortedProblems : GroupedProblemShape {};

// For grids along x.
template <class Base>
struct SortedScheduler : Base {
  using Base::Base;

  template <class Pipeline, class State>
  CUTLASS_DEVICE auto advance_to_next_work(Pipeline& pipeline, State state, uint32_t = 1) {
    ++round_;
    const uint32_t place = round_ % 2 == 0 ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
    const auto tile = Base::get_current_work_for_linear_idx(uint64_t{round_} * gridDim.x + place);
    pipeline.producer_acquire(state);
    if (cute::elect_one_sync()) {
      Base::response_ptr_[state.index()] = tile;
      cutlass::arch::fence_view_async_shared();
      pipeline.producer_commit(state);
    }
    return cute::make_tuple(tile, true);
  }

 private:
  uint32_t round_ = 0;
};

// A GroupedTemplate with this scheduler.
template <class Template>
struct Sorted {
  using Kernel = cutlass::gemm::kernel::GemmUniversal<SortedProblems, typename Template::Mainloop,
                                                      typename Template::Epilogue>;
};

}  // namespace switchyard::kernels::internal

// The one way to a scheduler for CUTLASS's ping-pong kernel.
template <class TileShape, class ClusterShape, uint32_t kStages>
struct cutlass::gemm::kernel::detail::TileSchedulerSelector<
    cutlass::gemm::GroupScheduler, cutlass::arch::Sm90, TileShape, ClusterShape, kStages,
    switchyard::kernels::internal::SortedProblems> {
  using Scheduler = switchyard::kernels::internal::SortedScheduler<
      cutlass::gemm::kernel::detail::PersistentTileSchedulerSm90Group<
          switchyard::kernels::internal::SortedProblems, kStages>>;
};
