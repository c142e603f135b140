// Routing by position instead of the router's choice, on a GPU; see moe/routing_override.h.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer::cuda {

std::unique_ptr<TokenDispatcher> MakeCudaRoutingOverride(
    std::unique_ptr<TokenDispatcher> dispatcher, int64_t num_experts, int64_t max_tokens,
    int64_t top_k, bool scattered);

}  // namespace switchyard::trainer::cuda
