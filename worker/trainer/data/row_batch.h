// A micro-batch from rows of token ids and labels as Transformers takes them.
#pragma once

#include <ATen/core/Tensor.h>

#include "worker/trainer/data/batch.h"

namespace switchyard::trainer {

struct RowBatch {
  at::Tensor input_ids;     // int64 [B, S]
  at::Tensor labels;        // int64 [B, S]: label t + 1 is the target of position t; -100 for none
  at::Tensor position_ids;  // int64 [B, S]; undefined: 0 .. S - 1. A position that does not follow
                            // the one before it starts a document
  at::Tensor valid;  // bool [B, S]: false for padding, at the end of a row; undefined: no padding
};

// Throws c10::Error when shapes or dtypes differ from the above or labels or ids lie outside the
// vocabulary.
Batch MakeBatch(const RowBatch& rows, int64_t vocab_size);

}  // namespace switchyard::trainer
