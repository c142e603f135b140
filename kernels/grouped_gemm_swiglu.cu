// The forward product of gate and up with SwiGLU at the end of each tile.
//
// A tile of the product holds 96 gate columns and the 96 up columns that belong to them.
// Its rows of the weight are picked by the tensor map (16 of gate, 16 of up, and so on), so that
// the weight and the result keep their plain order, and a thread gets both values of a pair.
#include <cutlass/cuda_host_adapter.hpp>

#include "kernels/device/cutlass_grouped.cuh"
#include "kernels/device/swiglu_math.cuh"

namespace switchyard::kernels::internal {
namespace {

constexpr int kTileN = cute::size<1>(GroupedTile{}), kTileK = cute::size<2>(GroupedTile{});
constexpr int kPairs = 16;  // neighbouring rows of gate, then of up, in a tile

template <class Base>
struct GateUpMainloop : PreparedMainloop<Base> {
  // As CUTLASS's, but for the coordinates of B: {K, row in a run, gate or up, run}.
  template <class Inputs, class Maps, class Coordinate, class KIterator>
  CUTLASS_DEVICE void load(const typename Base::Params& params,
                           typename Base::MainloopPipeline pipeline,
                           typename Base::PipelineState write, const Inputs& inputs,
                           const Maps& maps, const Coordinate& coordinate, KIterator, int k_tiles,
                           int, uint32_t, typename Base::TensorStorage& shared) {
    using cute::_, cute::get;
    if (!cute::elect_one_sync()) return;
    const auto tile_a = params.tma_load_a.get_slice(0);
    const auto from = tile_a.partition_S(get<0>(inputs)(_, _, get<0>(coordinate), _, 0));
    const auto to = tile_a.partition_D(
        cute::make_tensor(cute::make_smem_ptr(shared.smem_A.data()), typename Base::SmemLayoutA{}));
    const int run = get<1>(coordinate) * (kTileN / 2 / kPairs);
    for (int k = 0; k < k_tiles; ++k, ++write) {
      pipeline.producer_acquire(write);
      uint64_t* const barrier = pipeline.producer_get_barrier(write);
      cute::copy(params.tma_load_a.with(get<0>(maps), *barrier, 0), from(_, _, _, k),
                 to(_, _, _, write.index()));
      cute::SM90_TMA_LOAD_4D::copy(
          get<1>(maps), barrier, static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_NORMAL),
          shared.smem_B.data() + write.index() * kTileN * kTileK, k * kTileK, 0, 0, run);
    }
  }
};

// A quad's four packed blocks of 8 columns, one a lane, to `row`.
__device__ __forceinline__ void StoreBlocks(nv_bfloat16* row, const uint32_t (&v)[4]) {
  *reinterpret_cast<uint4*>(row) = make_uint4(v[0], v[1], v[2], v[3]);
}

struct WriteSwiglu {
  template <int kColumns, class Values>
  CUTLASS_DEVICE static void Write(const GroupedDestination& to, const TilePosition& at,
                                   const Values& values) {
    const int ffn = at.width / 2, quad = threadIdx.x % 4;
    CUTLASS_PRAGMA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = at.row + 8 * half;
      const bool valid = row < at.rows;
      const float weight = valid ? to.row_weight[row] : 0.0f;
      nv_bfloat16* const gate_up = static_cast<nv_bfloat16*>(to.out) + int64_t{row} * at.width;
      nv_bfloat16* const h_row = to.h + int64_t{row} * ffn;
      CUTLASS_PRAGMA_UNROLL
      for (int b = 0; b < kColumns / 8; b += 8) {  // two runs: 32 columns of gate and of up
        uint32_t gate[4], up[4], h[4];
        CUTLASS_PRAGMA_UNROLL
        for (int i = 0; i < 4; ++i) {
          // Blocks of a run: two of gate, two of up.
          const int g = 4 * (b + i / 2 * 4 + i % 2) + 2 * half, u = g + 4 * 2;
          gate[i] = PackBfloat16(values(g), values(g + 1));
          up[i] = PackBfloat16(values(u), values(u + 1));
          // From the rounded values: what the backward will see.
          h[i] = PackBfloat16(
              Swiglu(__uint_as_float(gate[i] << 16), __uint_as_float(up[i] << 16), weight),
              Swiglu(__uint_as_float(gate[i] & 0xffff0000u), __uint_as_float(up[i] & 0xffff0000u),
                     weight));
        }
        TransposeQuad(gate);
        TransposeQuad(up);
        TransposeQuad(h);
        const int column = at.column / 2 + 4 * b + 8 * quad;
        if (valid && column < ffn) {
          StoreBlocks(gate_up + column, gate);
          StoreBlocks(gate_up + ffn + column, up);
          StoreBlocks(h_row + column, h);
        }
      }
    }
  }
};

bool EncodeGateUpMap(const GroupedGemmShape& shape, void* address, TensorMap* map) {
  const cuuint64_t k = shape.in_features, ffn = shape.out_features / 2;
  const cuuint64_t extent[4] = {k, kPairs, 2, ffn / kPairs};
  const cuuint64_t pitch[3] = {2 * k, 2 * k * ffn, 2 * k * kPairs};  // bytes
  const cuuint32_t box[4] = {kTileK, kPairs, 2, kTileN / 2 / kPairs};
  const cuuint32_t step[4] = {1, 1, 1, 1};
  return CUTLASS_CUDA_DRIVER_WRAPPER_CALL(cuTensorMapEncodeTiled)(
             reinterpret_cast<CUtensorMap*>(map), CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 4, address,
             extent, pitch, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace

std::unique_ptr<GroupedGemmLauncher> MakeForwardSwiglu(const GroupedGemmShape& shape,
                                                       const GroupedArrays& arrays, int num_sms) {
  using Template = GroupedTemplate<RowMajor, ColumnMajor, RegisterEpilogue<Bfloat16, WriteSwiglu>,
                                   GateUpMainloop>;
  auto launcher = MakePlain<Template>(arrays, shape.num_experts, num_sms);
  if (launcher == nullptr ||
      !EncodeGateUpMap(shape, arrays.input_maps, &launcher->map_templates[kOperandB])) {
    return nullptr;
  }
  return launcher;
}

}  // namespace switchyard::kernels::internal
