// Products of rows sorted by expert with one matrix per expert, on Hopper's tensor cores.
//
// bfloat16 in, float32 accumulators. Expert l has the rows offset[l] .. offset[l + 1] - 1. The
// offsets are read on the device: nothing waits for the host, allocates, or depends on the routing
// (experts may be empty, one may have every row), and all of it can be captured. Knows nothing of
// tokens, layers or ranks.
//
//   1. Once: one GroupedGemm per product and shape (Build).
//   2. A layer: PrepareGroupedGemms, one launch of a few microseconds for all its products.
//   3. Run each of them, on any stream ordered after 2.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>
#include <string>

namespace switchyard::kernels {

enum class GroupedProduct {
  kForward,         // out [R, N] = a [R, K] b[l]^T with b [L, N, K] (rows, weight)
  kTransposed,      // out [R, K] = a [R, N] b[l] with b [L, N, K] (gradient of rows, weight)
  kWeightGradient,  // out [L, N, K] = a^T b over each expert's rows; a [R, N] (gradient), b [R, K]
  // kForward with N = 2F (gate rows of b, then up) that also writes h = silu(gate) * up *
  // row_weight; to the bit what SwigluForward makes of out.
  kForwardSwiglu,
};

enum class GroupedOutput {
  kBfloat16,    // set
  kFloat32,     // set; weight gradients only
  kFloat32Add,  // out += product; weight gradients only
};

struct GroupedGemmShape {
  GroupedProduct product;
  GroupedOutput output;
  int32_t num_experts;   // L
  int32_t out_features;  // N, of the weight [L, N, K]
  int32_t in_features;   // K
};

// Empty when the shape can be computed; otherwise which member is wrong and what it must be.
std::string GroupedGemmShapeError(const GroupedGemmShape& shape);
// Device memory that one GroupedGemm uses; its content matters only from Prepare to the end of Run.
int64_t GroupedGemmWorkspaceBytes(const GroupedGemmShape& shape);

namespace internal {
class GroupedGemmLauncher;
}

class GroupedGemm {
 public:
  GroupedGemm();
  ~GroupedGemm();
  GroupedGemm(GroupedGemm&&) noexcept;
  GroupedGemm& operator=(GroupedGemm&&) noexcept;

  // Takes the current device. workspace: GroupedGemmWorkspaceBytes, 256-byte aligned, of this
  // object alone. cudaErrorInvalidValue: GroupedGemmShapeError says why, or the workspace is
  // misaligned.
  cudaError_t Build(const GroupedGemmShape& shape, void* workspace);
  // Computes what was prepared last. sm_limit: multiprocessors that it may take (the others stay
  // free for communication); 0 for all. Deterministic, whatever sm_limit.
  cudaError_t Run(cudaStream_t stream, int sm_limit = 0) const;

  const GroupedGemmShape& shape() const { return shape_; }
  void* workspace() const { return workspace_; }
  const internal::GroupedGemmLauncher* launcher() const { return launcher_.get(); }

 private:
  GroupedGemmShape shape_{};
  void* workspace_ = nullptr;
  std::unique_ptr<internal::GroupedGemmLauncher> launcher_;
};

// Buffers of kForwardSwiglu beside `out`.
struct SwigluOperands {
  const float* row_weight_R;  // router weight of each row
  nv_bfloat16* h_RF;          // written
};

// One product of a layer and its buffers, 16-byte aligned. Rows beyond the last expert's are
// neither read nor written.
struct GroupedGemmCall {
  const GroupedGemm* gemm;
  const nv_bfloat16* a;  // see GroupedProduct
  const nv_bfloat16* b;
  void* out;                   // bfloat16 or float32, by the shape's output
  SwigluOperands swiglu = {};  // of kForwardSwiglu only
};

inline constexpr int kMaxGroupedGemmCalls = 8;

struct PrepareGroupedGemmsParams {
  GroupedGemmCall calls[kMaxGroupedGemmCalls];
  int32_t num_calls;         // at most kMaxGroupedGemmCalls; all with the same L
  const int32_t* offset_L1;  // device [L + 1]: exclusive prefix sum of rows, rising
  int64_t max_rows;          // rows of the buffers; rows beyond are left out
};

// Writes what Run reads into the workspaces. A product may be prepared again when its Run has
// ended.
cudaError_t PrepareGroupedGemms(const PrepareGroupedGemmsParams& params, cudaStream_t stream);

}  // namespace switchyard::kernels
