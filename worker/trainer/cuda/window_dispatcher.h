// TokenDispatcher of GPUs that map each other's memory: our kernels push rows into the peers'
// windows and wait for flags there.
//
// Two kernels bring tokens there (choices; rows, expanded while they arrive), one brings them back.
// Flow control is by counters that a receiver raises when it has consumed an exchange; a push waits
// for that of the exchange before, so any order of calls is safe and none needs a barrier. A peer
// that does not come within the session's time limit ends in an error word: from then on kernels do
// nothing, lists are empty, and the host's next look throws PeerLost.
#pragma once

#include <memory>

#include "worker/trainer/cuda/exchange_dispatcher.h"
#include "worker/trainer/cuda/peer_window.h"

namespace switchyard::trainer {

// `num_experts` over the whole group; `shape` (element_bytes 2) as the window was sized with
// (common/model/cuda_dispatch_window.h). `window` must outlive the dispatcher and has served no
// other shape; one dispatcher a window at a time.
std::unique_ptr<ExchangeDispatcher> MakeCudaWindowDispatcher(PeerWindow& window,
                                                             int64_t num_experts,
                                                             const DispatchWindowShape& shape,
                                                             const ExchangeBlocks& blocks = {});

}  // namespace switchyard::trainer
