// Routes by token position instead of by the router, for `bench`: throughput then does not depend
// on what random weights happen to choose.
#pragma once

#include <cstdint>
#include <memory>

#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

struct RoutingOverrideOptions {
  int64_t num_experts = 0;
  int64_t max_tokens = 0;  // of a micro-batch
  int64_t top_k = 0;
  // True: a token's experts are spread evenly from a pseudo-random start. False: they are
  // neighbours, most often on one rank. Both load all experts equally.
  bool scattered = false;
  at::Device device = at::kCPU;
};

// Wraps `dispatcher`. Router weights and padding stay. A choice is made by a lookup on the device,
// so nothing waits for it.
std::unique_ptr<TokenDispatcher> MakeRoutingOverride(std::unique_ptr<TokenDispatcher> dispatcher,
                                                     const RoutingOverrideOptions& options);

}  // namespace switchyard::trainer
