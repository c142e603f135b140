// Grouped products that sum over rows: the gradients of the experts' weights.
#include "kernels/device/cutlass_grouped.cuh"

namespace switchyard::kernels::internal {

std::unique_ptr<GroupedGemmLauncher> MakeWeightGradient(const GroupedArrays& arrays,
                                                        int num_experts, int num_sms) {
  return MakePlain<GroupedTemplate<ColumnMajor, RowMajor, void, Bfloat16>>(arrays, num_experts,
                                                                           num_sms, false);
}

std::unique_ptr<GroupedGemmLauncher> MakeWeightGradientFloat32(const GroupedArrays& arrays,
                                                               int num_experts, int num_sms,
                                                               bool add) {
  return MakePlain<GroupedTemplate<ColumnMajor, RowMajor, float, float>>(arrays, num_experts,
                                                                         num_sms, add);
}

}  // namespace switchyard::kernels::internal
