// Prepared token shards as tools/prepare_data.py writes them (docs/data_format.md), for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace switchyard::trainer {

struct PreparedSequence {
  std::vector<std::vector<int32_t>> documents;  // tokens of each; packed one after the other
  int64_t first_target = 1;  // within each document: tokens before it are no targets
};

// Writes index.json and one shard into `directory`.
void WritePreparedData(const std::string& directory, int64_t sequence_length, int64_t vocab_size,
                       const std::vector<PreparedSequence>& sequences);

// `count` sequences of a language that a small model can learn: runs of numbers, each the one
// before plus a step.
std::vector<PreparedSequence> CountingSequences(int64_t count, int64_t sequence_length,
                                                int64_t vocab_size, uint32_t seed);

}  // namespace switchyard::trainer
