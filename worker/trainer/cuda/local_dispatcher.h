// The dispatcher of a GPU without expert parallelism: every expert is here, no row leaves.
#pragma once

#include <memory>

#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer::cuda {

// `top_k` experts a token of `num_experts`.
std::unique_ptr<TokenDispatcher> MakeCudaLocalDispatcher(int64_t num_experts, int64_t top_k);

}  // namespace switchyard::trainer::cuda
