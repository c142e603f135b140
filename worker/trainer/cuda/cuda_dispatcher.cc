#include "worker/trainer/cuda/cuda_dispatcher.h"

#include <c10/util/Exception.h>

#include "worker/trainer/cuda/nccl_dispatcher.h"
#include "worker/trainer/cuda/window_dispatcher.h"

namespace switchyard::trainer {

std::unique_ptr<ExchangeDispatcher> MakeCudaDispatcher(CudaMeshGroups& groups, int64_t num_experts,
                                                       const DispatchWindowShape& shape,
                                                       const ExchangeBlocks& blocks) {
  if (groups.window != nullptr) {
    return MakeCudaWindowDispatcher(*groups.window, num_experts, shape, blocks);
  }
  TORCH_CHECK(groups.ep != nullptr, "expert_parallel is 1: there is nobody to exchange rows with");
  return MakeNcclDispatcher(*groups.ep, num_experts, shape, blocks);
}

}  // namespace switchyard::trainer
