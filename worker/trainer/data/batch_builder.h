// Micro-batches from token shards.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/trainer/data/batch.h"
#include "worker/trainer/data/token_shards.h"

namespace switchyard::trainer {

// The sequences with these numbers in `shards`, one after the other, each padded to the shards'
// sequence length; kEmptySequence is padding altogether.
Batch BuildBatch(const TokenShards& shards, const std::vector<int64_t>& sequences);

// Where the documents of these sequences begin in a batch of them, and the batch's end
// ([documents + 1], as Batch::document_offset): what is missing to a sequence's length is a
// document too.
std::vector<int32_t> DocumentOffsets(const TokenShards& shards,
                                     const std::vector<int64_t>& sequences);

// Targets of these sequences, from the tables of the shards.
int64_t CountTargets(const TokenShards& shards, const std::vector<int64_t>& sequences);

}  // namespace switchyard::trainer
