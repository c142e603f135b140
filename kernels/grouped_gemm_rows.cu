// Grouped products with one output row per input row: forward, and the gradient of the rows.
#include "kernels/device/cutlass_grouped.cuh"

namespace switchyard::kernels::internal {

std::unique_ptr<GroupedGemmLauncher> MakeForward(const GroupedArrays& arrays, int num_experts,
                                                 int num_sms) {
  return MakePlain<GroupedTemplate<RowMajor, ColumnMajor, void, Bfloat16>>(arrays, num_experts,
                                                                           num_sms, false);
}

std::unique_ptr<GroupedGemmLauncher> MakeTransposed(const GroupedArrays& arrays, int num_experts,
                                                    int num_sms) {
  return MakePlain<GroupedTemplate<RowMajor, RowMajor, void, Bfloat16>>(arrays, num_experts,
                                                                        num_sms, false);
}

}  // namespace switchyard::kernels::internal
