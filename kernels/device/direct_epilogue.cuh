// The end of a grouped GEMM's tile written straight from registers, 16 bytes a thread.
//
// CUTLASS's epilogue stages a tile through shared memory in pieces and waits for each; for tiles
// with a short sum that takes longer than the product. Here nothing waits: a quad of lanes swaps
// its values until each lane has 16 neighbouring bytes, and stores them.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>
#include <cute/tensor.hpp>

#include "kernels/grouped_gemm_internal.h"

namespace switchyard::kernels::internal {

// Lane q of each quad gives v[0..3] and gets v[q] of lanes 0..3.
__device__ __forceinline__ void TransposeQuad(uint32_t (&v)[4]) {
  const bool odd = threadIdx.x & 1, high = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? v[i] : v[i + 1], 1);
    (odd ? v[i] : v[i + 1]) = got;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t got = __shfl_xor_sync(0xffffffffu, high ? v[i] : v[i + 2], 2);
    (high ? v[i] : v[i + 2]) = got;
  }
}

__device__ __forceinline__ uint32_t PackBfloat16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Where a thread's accumulators lie in a tile of one expert. Value 4 b + 2 half + i of a block of
// 64 rows is at row `row` + 8 half and column `column` + 8 b + i (the layout of wgmma's
// accumulators).
struct TilePosition {
  int32_t expert;
  int32_t rows, width;  // of the expert's output
  int32_t row;          // of the thread's first value, in the expert's output
  int32_t column;       // of the tile's first value
};

// Calls Writer::Write(destination, position, values of 64 rows) for each 64 rows of a tile.
template <class Base, class Writer>
struct DirectEpilogue : Base {
  struct Params : Base::Params {
    const GroupedDestination* destinations;
  };

  template <class ProblemShape>
  static Params to_underlying_arguments(const ProblemShape& shape,
                                        const typename Base::Arguments& arguments,
                                        void* workspace) {
    return {Base::to_underlying_arguments(shape, arguments, workspace), nullptr};
  }

  CUTLASS_DEVICE DirectEpilogue(const Params& params, typename Base::TensorStorage& shared)
      : Base(params, shared), destinations_(params.destinations) {}

  CUTLASS_DEVICE bool is_producer_load_needed() const { return false; }
  template <bool kIsLoad, class... Arguments>
  CUTLASS_DEVICE void tensormaps_perform_update(Arguments&&...) {}
  template <bool kIsLoad, class... Arguments>
  CUTLASS_DEVICE void tensormaps_cp_fence_release(Arguments&&...) {}
  template <bool kIsLoad, class... Arguments>
  CUTLASS_DEVICE void tensormaps_fence_acquire(Arguments&&...) {}

  template <class Problem, class Tile, class Coordinate, class Accumulators, class Mma, class Map>
  CUTLASS_DEVICE auto store(typename Base::LoadPipeline,
                            typename Base::LoadPipelineState load_state,
                            typename Base::StorePipeline,
                            typename Base::StorePipelineState store_state, const Problem& problem,
                            Tile, const Coordinate& coordinate, const Accumulators& accumulators,
                            Mma, int thread, typename Base::TensorStorage&, const Map&, int = -1) {
    using cute::get;
    constexpr int kTileM = cute::size<0>(Tile{}), kTileN = cute::size<1>(Tile{});
    static_assert(decltype(cute::size<0>(accumulators))::value == kTileN / 2 &&
                  decltype(cute::size<1>(accumulators))::value == kTileM / 64);
    TilePosition at;
    at.expert = get<3>(coordinate);
    at.rows = get<0>(problem), at.width = get<1>(problem);
    at.column = get<1>(coordinate) * kTileN;
    const int first = get<0>(coordinate) * kTileM + thread / 32 * 16 + thread % 32 / 4;
    const GroupedDestination destination = destinations_[at.expert];
    CUTLASS_PRAGMA_UNROLL
    for (int block = 0; block < kTileM / 64; ++block) {
      at.row = first + block * 64;
      Writer::template Write<kTileN>(destination, at, accumulators(cute::_, block, 0));
    }
    return cute::make_tuple(load_state, store_state);
  }
  CUTLASS_DEVICE auto store_tail(typename Base::LoadPipeline,
                                 typename Base::LoadPipelineState load_state,
                                 typename Base::StorePipeline,
                                 typename Base::StorePipelineState store_state) {
    return cute::make_tuple(load_state, store_state);
  }

 private:
  const GroupedDestination* destinations_;
};

struct WriteBfloat16 {
  template <int kTileN, class Values>
  CUTLASS_DEVICE static void Write(const GroupedDestination& to, const TilePosition& at,
                                   const Values& values) {
    const int quad = threadIdx.x % 4;
    CUTLASS_PRAGMA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = at.row + 8 * half;
      nv_bfloat16* const out =
          static_cast<nv_bfloat16*>(to.out) + int64_t{row} * at.width + at.column + 8 * quad;
      CUTLASS_PRAGMA_UNROLL
      for (int b = 0; b < kTileN / 8; b += 4) {
        uint32_t v[4];
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < 4; ++i) {
          v[i] = PackBfloat16(values(4 * (b + i) + 2 * half), values(4 * (b + i) + 2 * half + 1));
        }
        TransposeQuad(v);
        if (row < at.rows && at.column + 8 * (b + quad) < at.width) {
          *reinterpret_cast<uint4*>(out + 8 * b) = make_uint4(v[0], v[1], v[2], v[3]);
        }
      }
    }
  }
};

// Two blocks of columns at a time: even lanes of a quad take the first, odd lanes the second.
struct WriteFloat32 {
  template <int kTileN, class Values>
  CUTLASS_DEVICE static void Write(const GroupedDestination& to, const TilePosition& at,
                                   const Values& values) {
    const bool odd = threadIdx.x & 1;
    const int offset = 8 * odd + threadIdx.x % 4 / 2 * 4;
    CUTLASS_PRAGMA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = at.row + 8 * half;
      float* const out = static_cast<float*>(to.out) + int64_t{row} * at.width + at.column + offset;
      CUTLASS_PRAGMA_UNROLL
      for (int b = 0; b < kTileN / 8; b += 2) {
        float mine[2], other[2];
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < 2; ++i) {
          const float first = values(4 * b + 2 * half + i);
          const float second = values(4 * (b + 1) + 2 * half + i);
          mine[i] = odd ? second : first;
          other[i] = __shfl_xor_sync(0xffffffffu, odd ? first : second, 1);
        }
        if (row < at.rows && at.column + 8 * b + offset < at.width) {
          *reinterpret_cast<float4*>(out + 8 * b) =
              odd ? make_float4(other[0], other[1], mine[0], mine[1])
                  : make_float4(mine[0], mine[1], other[0], other[1]);
        }
      }
    }
  }
};

}  // namespace switchyard::kernels::internal
