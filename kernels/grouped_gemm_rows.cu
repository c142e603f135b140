// Grouped products with one output row per input row: forward, and the gradient of the rows.
#include "kernels/device/cutlass_grouped.cuh"

namespace switchyard::kernels::internal {
namespace {

using Output = RegisterEpilogue<Bfloat16, WriteBfloat16>;

}  // namespace

std::unique_ptr<GroupedGemmLauncher> MakeForward(const GroupedArrays& arrays, int num_experts,
                                                 int num_sms) {
  return MakePlain<GroupedTemplate<RowMajor, ColumnMajor, Output>>(arrays, num_experts, num_sms);
}

std::unique_ptr<GroupedGemmLauncher> MakeTransposed(const GroupedArrays& arrays, int num_experts,
                                                    int num_sms) {
  return MakePlain<GroupedTemplate<RowMajor, RowMajor, Output>>(arrays, num_experts, num_sms);
}

}  // namespace switchyard::kernels::internal
