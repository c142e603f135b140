#include "worker/trainer/model/parameter_registry.h"

#include <c10/util/Exception.h>

namespace switchyard::trainer {

ParameterRegistry::ParameterRegistry(const ModelShape& shape, const Mesh& mesh, int rank)
    : mesh_(mesh), rank_(rank) {
  for (const ParameterSpec& spec : ListParameters(shape, mesh.experts_per_rank())) Add(spec);
  CloseBlock();
}

void ParameterRegistry::Add(const ParameterSpec& spec) {
  const ParameterKind kind = spec.expert ? ParameterKind::kExpert : ParameterKind::kReplicated;
  const bool new_block =
      blocks_.empty() || blocks_.back().kind != kind || blocks_.back().layer != spec.layer;
  if (new_block) {
    if (!blocks_.empty()) CloseBlock();
    const bool expert = kind == ParameterKind::kExpert;
    blocks_.push_back({kind, spec.layer, total_numel_, 0,
                       expert ? mesh_.expert_data_parallel() : mesh_.world_size()});
  }
  ParameterBlock& block = blocks_.back();
  parameters_.push_back({spec.name, spec.shape, kind, spec.layer,
                         static_cast<int>(blocks_.size()) - 1, block.numel, spec.numel()});
  block.numel += spec.numel();
}

void ParameterRegistry::CloseBlock() {
  ParameterBlock& block = blocks_.back();
  block.numel = PaddedBlock(block.numel, block.shards);
  total_numel_ = block.offset + block.numel;
}

int ParameterRegistry::Find(const std::string& name) const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

int ParameterRegistry::shard_index(const ParameterBlock& block) const {
  return block.kind == ParameterKind::kExpert ? mesh_.edp_rank(rank_) : rank_;
}

at::Tensor ParameterRegistry::Value(int parameter) const {
  const Parameter& p = parameters_.at(parameter);
  return values_.narrow(0, blocks_[p.block].offset + p.offset, p.numel).view(p.shape);
}

at::Tensor ParameterRegistry::BlockValues(int block) const {
  const ParameterBlock& b = blocks_.at(block);
  return values_.narrow(0, b.offset, b.numel);
}

}  // namespace switchyard::trainer
