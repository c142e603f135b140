// Routes by token position instead of by the router, for `bench`: throughput then does not depend
// on what random weights happen to choose.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

// Expert of choice `choice` of token `token`: t K, t K + 1, ... modulo the number of experts
// (consecutive: a token's experts are neighbours, most often on one rank), or K experts spread
// evenly from a pseudo-random start (scattered). Both load all experts equally.
int64_t OverriddenExpert(int64_t token, int64_t choice, int64_t num_experts, int64_t top_k,
                         bool scattered);

// Wraps `dispatcher`. Router weights and padding stay.
std::unique_ptr<TokenDispatcher> MakeRoutingOverride(std::unique_ptr<TokenDispatcher> dispatcher,
                                                     int64_t num_experts, bool scattered);

}  // namespace switchyard::trainer
