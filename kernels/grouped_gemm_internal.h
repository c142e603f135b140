// What the parts of the grouped GEMM share: the workspace's layout and one launcher per template.
//
// Included by kernels/grouped_gemm*.cu only; the CUTLASS types stay in the files that compile them.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/grouped_gemm.h"

namespace switchyard::kernels::internal {

struct GroupedProblem {  // of one expert, in GEMM terms: D [M, N] = A [M, K] B [N, K]^T
  int32_t m, n, k;
};

// First elements of one expert's rows, for ends of tiles that do not use maps.
struct GroupedDestination {
  void* out;
  nv_bfloat16* h;
  const float* row_weight;
};

// What the TMA unit reads and writes by; opaque.
struct alignas(128) TensorMap {
  uint64_t opaque[16];
};

// Operands of a GEMM in the order of their maps. C is the output when it is added to.
enum GroupedOperand { kOperandA, kOperandB, kOperandD, kOperandC, kNumOperands };

// Views of a workspace. The maps of all experts are made before the product runs: made by its
// blocks, at every change of expert, they cost more than a short tile.
struct GroupedArrays {
  GroupedProblem* problem;           // [L]
  TensorMap* input_maps;             // [L][2]: A, B
  TensorMap* output_maps;            // [L][2]: D, C
  GroupedDestination* destinations;  // [L]
  nv_bfloat16* zeros;                // a row of zeros, as long as the longer one of a and b
};

// Lays the arrays out from `workspace`; returns the bytes.
int64_t LayOutWorkspace(const GroupedGemmShape& shape, void* workspace, GroupedArrays* arrays);

// Columns of a tile.
inline constexpr int kGroupedTileColumns = 192;

class GroupedGemmLauncher {
 public:
  virtual ~GroupedGemmLauncher() = default;
  virtual cudaError_t Launch(int sms, cudaStream_t stream) const = 0;

  int num_sms = 0;
  // Complete but for address, extent and stride.
  TensorMap map_templates[kNumOperands] = {};
};

// Null when the device refuses the kernel.
std::unique_ptr<GroupedGemmLauncher> MakeForward(const GroupedArrays& arrays, int num_experts,
                                                 int num_sms);
std::unique_ptr<GroupedGemmLauncher> MakeTransposed(const GroupedArrays& arrays, int num_experts,
                                                    int num_sms);
std::unique_ptr<GroupedGemmLauncher> MakeWeightGradient(const GroupedArrays& arrays,
                                                        int num_experts, int num_sms);
std::unique_ptr<GroupedGemmLauncher> MakeWeightGradientFloat32(const GroupedArrays& arrays,
                                                               int num_experts, int num_sms,
                                                               bool add);

std::unique_ptr<GroupedGemmLauncher> MakeForwardSwiglu(const GroupedGemmShape& shape,
                                                       const GroupedArrays& arrays, int num_sms);

}  // namespace switchyard::kernels::internal
