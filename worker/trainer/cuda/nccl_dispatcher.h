// TokenDispatcher of GPUs that do not map each other's memory: the rows, choices and sums of the
// window dispatcher, packed into buffers that NCCL carries. Same bytes, at the cost of room for the
// worst routing on the wire and of packing.
#pragma once

#include <memory>

#include "worker/trainer/cuda/exchange_dispatcher.h"
#include "worker/trainer/cuda/nccl_communicator.h"

namespace switchyard::trainer {

// Bytes of device memory that it allocates when it is made.
int64_t NcclDispatcherBytes(int64_t num_experts, const DispatchWindowShape& shape);

// `communicator`: of the ep group; must outlive the dispatcher. `shape`: the largest micro-batch,
// element_bytes 2.
std::unique_ptr<ExchangeDispatcher> MakeNcclDispatcher(NcclCommunicator& communicator,
                                                       int64_t num_experts,
                                                       const DispatchWindowShape& shape,
                                                       const ExchangeBlocks& blocks = {});

}  // namespace switchyard::trainer
