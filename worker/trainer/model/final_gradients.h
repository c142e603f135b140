// What a decoder tells, in the last micro-batch of a step, of gradients that will not change any
// more.
#pragma once

#include <functional>

#include "worker/trainer/model/arena.h"
#include "worker/trainer/ops/rows.h"

namespace switchyard::trainer {

// Each may be empty.
struct FinalGradients {
  // Those of a layer, while the backward of another runs and work beside it costs least; not of
  // every layer.
  std::function<void(int layer)> of_layer;
  // The embedding's, whose rows are still to be summed: its BlockGradient is not written then. Only
  // when RankMemory::gathers_embedding_rows.
  std::function<void(const ops::EmbeddingRows& rows, Arena& workspace)> of_embedding;
};

}  // namespace switchyard::trainer
