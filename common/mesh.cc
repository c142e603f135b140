#include "common/mesh.h"

#include "absl/strings/str_format.h"

namespace switchyard {

absl::StatusOr<Mesh> Mesh::Create(int world_size, int expert_parallel, int num_experts) {
  if (world_size < 1) {
    return absl::InvalidArgumentError(absl::StrFormat("ranks (%d) must be at least 1", world_size));
  }
  if (expert_parallel < 1 || world_size % expert_parallel != 0) {
    return absl::InvalidArgumentError(absl::StrFormat("expert_parallel (%d) must divide ranks (%d)",
                                                      expert_parallel, world_size));
  }
  if (num_experts == 0 && expert_parallel != 1) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "expert_parallel (%d) must be 1: the model has no experts", expert_parallel));
  }
  if (num_experts % expert_parallel != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("expert_parallel (%d) must divide the model's number of experts (%d)",
                        expert_parallel, num_experts));
  }
  return Mesh(world_size, expert_parallel, num_experts);
}

std::vector<int> Mesh::EpGroup(int rank) const {
  std::vector<int> ranks(expert_parallel_);
  for (int i = 0; i < expert_parallel_; ++i) ranks[i] = edp_rank(rank) * expert_parallel_ + i;
  return ranks;
}

std::vector<int> Mesh::EdpGroup(int rank) const {
  std::vector<int> ranks(expert_data_parallel());
  for (size_t i = 0; i < ranks.size(); ++i) {
    ranks[i] = static_cast<int>(i) * expert_parallel_ + ep_rank(rank);
  }
  return ranks;
}

}  // namespace switchyard
