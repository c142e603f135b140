#include "worker/trainer/model/gradient_store.h"

#include <ATen/ops/zeros.h>

#include <utility>

namespace switchyard::trainer {
namespace {

// View of parameters index .. index + count - 1, which lie in `flat` from element `start` on, as
// one matrix or one vector.
at::Tensor Fused(const ParameterRegistry& registry, const at::Tensor& flat, int64_t start,
                 int index, int count) {
  int64_t numel = 0;
  for (int i = index; i < index + count; ++i) numel += registry.parameters()[i].numel;
  const at::Tensor all = flat.narrow(0, start, numel);
  const std::vector<int64_t>& shape = registry.parameters()[index].shape;
  return shape.size() == 1 ? all : all.view({-1, shape.back()});
}

}  // namespace

GradientStore::GradientStore(const ParameterRegistry& registry, std::vector<Arena>& slots,
                             at::ScalarType dtype, at::Device device, bool accumulate,
                             at::Tensor scratch)
    : registry_(registry), accumulate_(accumulate), scratch_(std::move(scratch)) {
  const auto options = at::TensorOptions().device(device);
  at::Tensor all;
  if (accumulate) all = at::zeros({registry.total_numel()}, options.dtype(at::kFloat));
  for (const ParameterBlock& block : registry.blocks()) {
    if (accumulate) {
      blocks_.push_back(all.narrow(0, block.offset, block.numel));
    } else if (block.layer < 0) {
      blocks_.push_back(at::zeros({block.numel}, options.dtype(dtype)));
    } else {
      Arena& slot = slots.at(block.layer + 1);
      if (block.kind == ParameterKind::kReplicated) slot.Reset();  // the first block of its layer
      blocks_.push_back(slot.Take({block.numel}, dtype));
    }
  }
  for (Arena& slot : slots) slot.Reset();
}

ops::WeightGradient GradientStore::Destination(int index) const {
  const Parameter& p = registry_.parameters().at(index);
  return {blocks_[p.block].narrow(0, p.offset, p.numel).view(p.shape), accumulate_, scratch_};
}

ops::WeightGradient GradientStore::Destination(int index, int count) const {
  const Parameter& p = registry_.parameters().at(index);
  return {Fused(registry_, blocks_[p.block], p.offset, index, count), accumulate_, scratch_};
}

void GradientStore::ZeroPadding(int layer) {
  if (accumulate_) return;
  std::vector<int64_t> end(blocks_.size(), 0);
  for (const Parameter& p : registry_.parameters()) {
    if (p.layer == layer) end[p.block] = p.offset + p.numel;
  }
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (registry_.blocks()[b].layer == layer) blocks_[b].slice(0, end[b]).zero_();
  }
}

void GradientStore::ZeroAll() {
  for (at::Tensor& block : blocks_) block.zero_();
}

at::Tensor FusedValue(const ParameterRegistry& registry, int index, int count) {
  const Parameter& p = registry.parameters().at(index);
  return Fused(registry, registry.values(), registry.blocks()[p.block].offset + p.offset, index,
               count);
}

}  // namespace switchyard::trainer
