// The held-out loss.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/data/token_shards.h"
#include "worker/trainer/model/decoder.h"

namespace switchyard::trainer {

struct EvaluationResult {
  double loss = 0;  // mean cross-entropy per target over all sequences, nats; NaN without targets
  int64_t targets = 0;
};

// Every sequence of `data` once, dealt to the ranks in order, `micro_batch` at a time. Collective;
// the same on all ranks. `go_on` is called between micro-batches with the done share; when it says
// no, which must be on all ranks alike, there is no result.
std::optional<EvaluationResult> EvaluateAll(Decoder& decoder, Communicator& world,
                                            const TokenShards& data, int64_t micro_batch,
                                            const std::function<bool(double)>& go_on);

}  // namespace switchyard::trainer
