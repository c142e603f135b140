#include "worker/trainer/data/batch_builder.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "worker/trainer/data/batch_order.h"

namespace switchyard::trainer {
namespace {

constexpr int64_t kNoTarget = -100;

}  // namespace

Batch BuildBatch(const TokenShards& shards, const std::vector<int64_t>& sequences) {
  Batch batch;
  batch.num_sequences = static_cast<int64_t>(sequences.size());
  batch.sequence_length = shards.sequence_length();
  const int64_t total = batch.num_sequences * batch.sequence_length;
  batch.input_id_T = at::zeros({total}, at::kLong);
  batch.target_T = at::full({total}, kNoTarget, at::kLong);
  batch.position_T = at::zeros({total}, at::kLong);
  batch.valid_T = at::zeros({total}, at::kBool);
  auto* input = batch.input_id_T.mutable_data_ptr<int64_t>();
  auto* target = batch.target_T.mutable_data_ptr<int64_t>();
  auto* position = batch.position_T.mutable_data_ptr<int64_t>();
  auto* valid = batch.valid_T.mutable_data_ptr<bool>();

  for (size_t i = 0; i < sequences.size(); ++i) {
    const int64_t base = static_cast<int64_t>(i) * batch.sequence_length;
    if (sequences[i] == kEmptySequence) continue;
    const TokenSequence sequence = shards.sequence(sequences[i]);
    const auto length = static_cast<int64_t>(sequence.tokens.size());
    for (int64_t t = 0; t < length; ++t) {
      input[base + t] = sequence.tokens[t];
      valid[base + t] = true;
      if (t > 0 && sequence.is_target(t)) target[base + t - 1] = sequence.tokens[t];
    }
    batch.num_tokens += length;
    batch.num_targets += sequence.num_targets;
  }
  const std::vector<int32_t> offsets = DocumentOffsets(shards, sequences);
  for (size_t d = 0; d + 1 < offsets.size(); ++d) {
    for (int64_t t = offsets[d]; t < offsets[d + 1]; ++t) position[t] = t - offsets[d];
  }
  batch.document_offset = at::empty({static_cast<int64_t>(offsets.size())}, at::kInt);
  std::copy(offsets.begin(), offsets.end(), batch.document_offset.mutable_data_ptr<int32_t>());
  return batch;
}

std::vector<int32_t> DocumentOffsets(const TokenShards& shards,
                                     const std::vector<int64_t>& sequences) {
  const int64_t sequence_length = shards.sequence_length();
  std::vector<int32_t> offsets;
  int64_t base = 0;
  for (int64_t index : sequences) {
    int64_t length = 0;
    if (index != kEmptySequence) {
      const TokenSequence sequence = shards.sequence(index);
      length = static_cast<int64_t>(sequence.tokens.size());
      for (uint32_t start : sequence.document_starts)
        offsets.push_back(static_cast<int32_t>(base + start));
    }
    if (length < sequence_length) offsets.push_back(static_cast<int32_t>(base + length));
    base += sequence_length;
  }
  offsets.push_back(static_cast<int32_t>(base));
  return offsets;
}

int64_t CountTargets(const TokenShards& shards, const std::vector<int64_t>& sequences) {
  int64_t targets = 0;
  for (int64_t sequence : sequences) {
    if (sequence != kEmptySequence) targets += shards.num_targets(sequence);
  }
  return targets;
}

}  // namespace switchyard::trainer
