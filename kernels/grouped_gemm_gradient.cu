// Grouped products that sum over rows: the gradients of the experts' weights.
#include "kernels/device/cutlass_grouped.cuh"
#include "kernels/device/sorted_scheduler.cuh"

namespace switchyard::kernels::internal {
namespace {

template <class Epilogue>
using Gradient = Sorted<GroupedTemplate<ColumnMajor, RowMajor, Epilogue>>;

}  // namespace

std::unique_ptr<GroupedGemmLauncher> MakeWeightGradient(const GroupedArrays& arrays,
                                                        int num_experts, int num_sms) {
  return MakePlain<Gradient<RegisterEpilogue<Bfloat16, WriteBfloat16>>>(arrays, num_experts,
                                                                        num_sms);
}

std::unique_ptr<GroupedGemmLauncher> MakeWeightGradientFloat32(const GroupedArrays& arrays,
                                                               int num_experts, int num_sms,
                                                               bool add) {
  if (!add) {
    return MakePlain<Gradient<RegisterEpilogue<float, WriteFloat32>>>(arrays, num_experts, num_sms);
  }
  return MakePlain<Gradient<StagedEpilogue<float, float, 32, 6, 4>>>(arrays, num_experts, num_sms,
                                                                     true);
}

}  // namespace switchyard::kernels::internal
