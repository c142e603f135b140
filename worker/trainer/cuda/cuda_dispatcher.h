// The dispatcher of an ep group of GPUs: over the window where the ranks map each other's memory,
// over NCCL elsewhere. Same bytes.
#pragma once

#include <memory>

#include "worker/trainer/cuda/exchange_dispatcher.h"
#include "worker/trainer/cuda/mesh_groups_cuda.h"

namespace switchyard::trainer {

// `num_experts` over the whole group; `shape`: the largest micro-batch, element_bytes 2, as the
// window was sized with (common/model/cuda_dispatch_window.h). ep must be 2 or more; `groups` must
// outlive the dispatcher.
std::unique_ptr<ExchangeDispatcher> MakeCudaDispatcher(CudaMeshGroups& groups, int64_t num_experts,
                                                       const DispatchWindowShape& shape,
                                                       const ExchangeBlocks& blocks = {});

}  // namespace switchyard::trainer
