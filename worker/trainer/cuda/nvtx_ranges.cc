#include "worker/trainer/cuda/nvtx_ranges.h"

#include <ATen/record_function.h>
#include <nvtx3/nvToolsExt.h>

#include <memory>

namespace switchyard::trainer::cuda {

void ShowRangesToProfilers() {
  static const at::CallbackHandle once = at::addGlobalCallback(
      at::RecordFunctionCallback(
          [](const at::RecordFunction& range) {
            nvtxRangePushA(range.name());
            return std::unique_ptr<at::ObserverContext>();
          },
          [](const at::RecordFunction&, at::ObserverContext*) { nvtxRangePop(); })
          .scopes({at::RecordScope::USER_SCOPE}));
  static_cast<void>(once);
}

}  // namespace switchyard::trainer::cuda
