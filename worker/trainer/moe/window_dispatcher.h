// TokenDispatcher over a SymmetricWindow of an ep group of two or more ranks.
//
// One row travels per (token, destination rank). Its slot at the destination is the number of
// earlier tokens that go there too, so rows of a source arrive in token order and no atomics are
// needed. A token's rows are summed in float32 in the order of its choices, rounded to the row
// type, sent back as one row, and added by the owner in rank order in float32. Dropless: the window
// has room for the worst routing.
//
// Flags: kRows (rows are there), kRowsTaken (their room is free again), kBack and kBackTaken
// likewise for the way back. A push waits for the taken flag of the push before it, so any order of
// calls is safe.
#pragma once

#include <memory>

#include "common/model/dispatch_window.h"
#include "worker/trainer/comm/symmetric_window.h"
#include "worker/trainer/moe/token_dispatcher.h"

namespace switchyard::trainer {

// `num_experts` over the whole group; `shape` as the window was sized with. Tensors are float32 or
// bfloat16 on the CPU, with at most shape.max_tokens tokens. `window` must outlive the dispatcher.
std::unique_ptr<TokenDispatcher> MakeWindowDispatcher(SymmetricWindow& window, int64_t num_experts,
                                                      const DispatchWindowShape& shape);

}  // namespace switchyard::trainer
