// One micro-batch as the model takes it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace switchyard::trainer {

// T = B * S tokens. Padding lies at the end of a sequence; a batch may be padding altogether.
struct Batch {
  int64_t num_sequences = 0;    // B
  int64_t sequence_length = 0;  // S
  at::Tensor input_id_T;        // int64 [T]; 0 for padding
  // int64 [T]: the token to predict at this position (already shifted), -100 for none. A document's
  // last position has none, so a document's first token is never a target.
  at::Tensor target_T;
  at::Tensor position_T;  // int64 [T]: position within the document; restarts at 0
  at::Tensor valid_T;     // bool [T]: false for padding, which is neither routed nor counted
  // int32 [documents + 1], on the host: boundaries of documents in T; each run of padding is a
  // document too, so the last entry is T and attention never crosses an entry.
  at::Tensor document_offset;
  int64_t num_tokens = 0;   // valid tokens
  int64_t num_targets = 0;  // targets
};

}  // namespace switchyard::trainer
