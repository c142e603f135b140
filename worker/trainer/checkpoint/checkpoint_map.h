// Which elements of which checkpoint tensor are which elements of this rank's parameters.
//
// Experts come in two layouts: one tensor an expert ("...experts.3.gate_proj.weight" [F, D],
// up_proj, and down_proj [D, F]), or fused as Transformers holds them ("...experts.gate_up_proj"
// [E, 2F, D], gate rows first, and "...experts.down_proj" [E, D, F]); each layer may have either.
// Both are ranges of the parameters' own order, so every correspondence is a contiguous range. A
// checkpoint of a model with tied embeddings may still hold lm_head.weight; it is then a copy of
// the embedding.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/checkpoint_files.h"
#include "worker/trainer/model/parameter_registry.h"

namespace switchyard::trainer {

// `count` elements, from element `parameter_offset` of parameter `parameter` of this rank and from
// element `tensor_offset` of checkpoint tensor `tensor`.
struct CheckpointPiece {
  int parameter = 0;
  int64_t parameter_offset = 0;
  int tensor = 0;
  int64_t tensor_offset = 0;
  int64_t count = 0;
};

// The same as seen from a parameter block.
struct BlockSegment {
  int tensor = 0;
  int64_t tensor_offset = 0;
  int64_t block_offset = 0;
  int64_t count = 0;
};

class CheckpointMap {
 public:
  // Proves that over the mesh every element of every tensor belongs to exactly one parameter
  // element (copies aside) and the other way round. Otherwise InvalidArgument lists what is
  // missing, unexpected, of the wrong shape or of a dtype other than F32, BF16, F16.
  static absl::StatusOr<CheckpointMap> Create(const ParameterRegistry& registry,
                                              const CheckpointFiles& files);

  // Of this rank, by parameter and offset; they cover every parameter without a gap.
  const std::vector<CheckpointPiece>& pieces() const { return pieces_; }
  // Pairs of tensors {copy, original}: {lm_head.weight, model.embed_tokens.weight} of a tied model,
  // or nothing.
  const std::vector<std::pair<int, int>>& copies() const { return copies_; }
  // What elements [begin, end) of block `block` are, by block offset; padding is left out. With
  // `with_copies`, copies follow their originals.
  std::vector<BlockSegment> Segments(int block, int64_t begin, int64_t end, bool with_copies) const;

 private:
  std::vector<CheckpointPiece> pieces_;
  std::vector<std::pair<int, int>> copies_;
  std::vector<std::vector<BlockSegment>> blocks_;
};

}  // namespace switchyard::trainer
