// What the parts of the grouped GEMM share: the workspace's layout and one launcher per template.
//
// Included by kernels/grouped_gemm*.cu only; the CUTLASS types stay in the files that compile them.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/grouped_gemm.h"

namespace switchyard::kernels::internal {

// Multiprocessors that the workspace has room for (tensor maps are kept by multiprocessor).
inline constexpr int kMaxSms = 256;

struct GroupedProblem {  // of one expert, in GEMM terms: D [M, N] = A [M, K] B [N, K]^T
  int32_t m, n, k;
};

// Views of a workspace; one element per expert.
struct GroupedArrays {
  GroupedProblem* problem;
  const nv_bfloat16** a;
  const nv_bfloat16** b;
  void** out;
  int64_t* stride_a;  // elements between rows of the buffers
  int64_t* stride_b;
  int64_t* stride_out;
  nv_bfloat16* zeros;  // a row of zeros, as long as the longer one of a and b
  void* tensor_maps;
};

// Lays the arrays out from `workspace`; returns the bytes.
int64_t LayOutWorkspace(const GroupedGemmShape& shape, void* workspace, GroupedArrays* arrays);

class GroupedGemmLauncher {
 public:
  virtual ~GroupedGemmLauncher() = default;
  virtual cudaError_t Launch(int sms, cudaStream_t stream) const = 0;

  int num_sms = 0;
};

inline constexpr int64_t kTensorMapBytes = int64_t{kMaxSms} * 6 * 128;

// Null when the device cannot run it (not Hopper).
std::unique_ptr<GroupedGemmLauncher> MakeForward(const GroupedArrays& arrays, int num_experts,
                                                 int num_sms);
std::unique_ptr<GroupedGemmLauncher> MakeTransposed(const GroupedArrays& arrays, int num_experts,
                                                    int num_sms);
std::unique_ptr<GroupedGemmLauncher> MakeWeightGradient(const GroupedArrays& arrays,
                                                        int num_experts, int num_sms);
std::unique_ptr<GroupedGemmLauncher> MakeWeightGradientFloat32(const GroupedArrays& arrays,
                                                               int num_experts, int num_sms,
                                                               bool add);

}  // namespace switchyard::kernels::internal
