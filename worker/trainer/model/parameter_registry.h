// Every parameter of the model on this rank: name, shape, kind, and where value, gradient and
// optimizer state lie.
//
// Parameters lie in blocks. A block is what is communicated and updated at once: the replicated or
// the expert parameters of one decoder layer, the embedding, or final norm and head.
// Values of all blocks lie back to back in one flat buffer of the parameter dtype. A block is
// padded to a multiple of shards * kShardAlignment elements and cut into `shards` equal contiguous
// parts: part i belongs to ZeRO-1 member i (the world for replicated blocks, the edp group for
// expert blocks).
//
// Knows nothing of checkpoint files: checkpoint/checkpoint_map.h maps parameters to checkpoint
// tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/mesh.h"
#include "common/model/model_shape.h"
#include "common/model/parameter_list.h"

namespace switchyard::trainer {

enum class ParameterKind { kReplicated, kExpert };

using switchyard::kHeadLayer;
using switchyard::kOuterLayer;
using switchyard::kShardAlignment;

struct Parameter {
  // Name as in Transformers' module tree; experts are stacked:
  // "model.layers.0.mlp.experts.gate_up_proj" [L, 2F, D] (gate rows first, then up),
  // "model.layers.0.mlp.experts.down_proj" [L, D, F].
  std::string name;
  std::vector<int64_t> shape;  // on this rank
  ParameterKind kind = ParameterKind::kReplicated;
  int layer = kOuterLayer;  // decoder layer, kOuterLayer or kHeadLayer
  int block = 0;            // index into blocks()
  int64_t offset = 0;       // element offset in its block
  int64_t numel = 0;
};

struct ParameterBlock {
  ParameterKind kind = ParameterKind::kReplicated;
  int layer = kOuterLayer;
  int64_t offset = 0;  // element offset in the flat value buffer
  int64_t numel = 0;   // padded
  int64_t shards = 1;  // members of its ZeRO-1 group
  int64_t shard_numel() const { return numel / shards; }
};

class ParameterRegistry {
 public:
  // Lays out the model on `rank` of `mesh`; allocates nothing.
  ParameterRegistry(const ModelShape& shape, const Mesh& mesh, int rank);

  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<ParameterBlock>& blocks() const { return blocks_; }
  // Index of the parameter called `name`; -1 when there is none.
  int Find(const std::string& name) const;
  // Elements of the flat value buffer.
  int64_t total_numel() const { return total_numel_; }
  // Member of block's ZeRO-1 group that this rank is.
  int shard_index(const ParameterBlock& block) const;
  const Mesh& mesh() const { return mesh_; }
  int rank() const { return rank_; }

  // Binds the flat value buffer (total_numel() elements, parameter dtype).
  void BindValues(at::Tensor flat_values) { values_ = std::move(flat_values); }
  const at::Tensor& values() const { return values_; }
  // View of a parameter's value in its shape.
  at::Tensor Value(int parameter) const;
  // View of a whole block's values, [numel].
  at::Tensor BlockValues(int block) const;

 private:
  void Add(const ParameterSpec& spec);
  void CloseBlock();

  std::vector<Parameter> parameters_;
  std::vector<ParameterBlock> blocks_;
  int64_t total_numel_ = 0;
  Mesh mesh_;
  int rank_;
  at::Tensor values_;
};

}  // namespace switchyard::trainer
