// Scratch memory that the deterministic attention of a run's documents wants on a GPU, known from
// the data before the first step.
#pragma once

#include <cstdint>

#include "common/model/packed_attention.h"
#include "worker/trainer/data/batch_order.h"
#include "worker/trainer/data/token_shards.h"

namespace switchyard::trainer {

struct AttentionScratch {
  int64_t bytes = 0;
  // Of the micro-batch that wants most.
  DocumentClass documents;
  int64_t step = 0;  // 1-based
};

// Over the micro-batches of `rank` in steps 1 to `steps`.
AttentionScratch LargestAttentionScratch(const TokenShards& data, BatchOrder& order, int64_t steps,
                                         int64_t rank, int64_t num_heads);

}  // namespace switchyard::trainer
