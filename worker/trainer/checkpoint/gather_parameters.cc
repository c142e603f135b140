#include "worker/trainer/checkpoint/gather_parameters.h"

#include <ATen/ops/zeros.h>

#include <vector>

#include "common/mesh.h"
#include "worker/trainer/checkpoint/checkpoint_map.h"

namespace switchyard::trainer {
namespace {

// The layout on a single rank, with values to be filled in.
ParameterRegistry WholeModel(const ModelShape& shape, at::Device device) {
  const int experts = shape.num_moe_layers() > 0 ? static_cast<int>(shape.num_experts) : 0;
  ParameterRegistry whole(shape, Mesh::Create(1, 1, experts).value(), 0);
  whole.BindValues(
      at::zeros({whole.total_numel()}, at::TensorOptions().dtype(at::kFloat).device(device)));
  return whole;
}

}  // namespace

NamedTensors GatherParameters(const ModelShape& shape, const ParameterRegistry& local,
                              MeshCommunicators& communicators, const CheckpointFiles& files,
                              const std::string& prefix, const BlockTensors& blocks,
                              Replicas replicas) {
  ParameterRegistry whole = WholeModel(shape, communicators.world->device());
  for (size_t i = 0; i < local.parameters().size(); ++i) {
    const Parameter& p = local.parameters()[i];
    const bool expert = p.kind == ParameterKind::kExpert;
    at::Tensor part =
        blocks(p.block).narrow(0, p.offset, p.numel).to(at::kFloat, false, /*copy=*/true);
    if (replicas == Replicas::kSum)
      (expert ? communicators.edp : communicators.world)->AllReduce(part);
    at::Tensor destination = whole.Value(static_cast<int>(i)).view(-1);
    if (expert) {
      communicators.ep->AllGather(part, destination);  // experts lie in ep order
    } else {
      destination.copy_(part);
    }
  }

  const absl::StatusOr<CheckpointMap> map = CheckpointMap::Create(whole, files);
  TORCH_CHECK(map.ok(), std::string(map.status().message()));
  std::vector<bool> copy(files.num_tensors(), false);
  for (const auto& [tensor, original] : map->copies()) copy[tensor] = true;
  std::vector<at::Tensor> by_tensor(files.num_tensors());
  NamedTensors out;
  for (int t = 0; t < files.num_tensors(); ++t) {
    if (copy[t]) continue;
    by_tensor[t] = at::zeros(files.tensor(t).shape, at::kFloat);
    out.emplace_back(prefix + files.tensor(t).name, by_tensor[t]);
  }
  for (const CheckpointPiece& piece : map->pieces()) {
    by_tensor[piece.tensor]
        .view(-1)
        .narrow(0, piece.tensor_offset, piece.count)
        .copy_(
            whole.Value(piece.parameter).view(-1).narrow(0, piece.parameter_offset, piece.count));
  }
  return out;
}

}  // namespace switchyard::trainer
