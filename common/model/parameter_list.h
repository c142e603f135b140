// The parameters of a decoder in the order in which they lie in memory: names, shapes, layers.
//
// The trainer's registry and the memory arithmetic are both made from this list.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/model/model_shape.h"

namespace switchyard {

inline constexpr int64_t kShardAlignment = 64;  // elements
// Layers of what belongs to no decoder layer: the embedding (with the final norm where it serves as
// the head, too), and the final norm and the head, whose gradients are ready first.
inline constexpr int kOuterLayer = -1;
inline constexpr int kHeadLayer = -2;

struct ParameterSpec {
  std::string name;  // in Transformers' module tree; experts are stacked
  std::vector<int64_t> shape;
  bool expert = false;  // first dimension is this rank's experts
  int layer = kOuterLayer;
  int64_t numel() const;
};

// Outer parameters, then layer by layer the replicated ones and the experts'. Projections that one
// product computes (q, k, v; gate, up) are neighbours, and so are their biases. `experts` is the
// number of experts held.
std::vector<ParameterSpec> ListParameters(const ModelShape& shape, int64_t experts);

// Elements of the largest weight gradient that one product computes: q, k and v together, gate and
// up together, one expert at a time.
int64_t LargestGradientMatrix(const ModelShape& shape);

// Elements of a block that is cut into `shards` equal parts of whole kShardAlignment.
int64_t PaddedBlock(int64_t numel, int64_t shards);

}  // namespace switchyard
