// The DP x EP mesh: which rank holds which experts and which copy of them.
//
// W ranks all hold different data. Axis ep shards the experts: ranks of one ep group are
// consecutive (rank / ep is the same) and hold contiguous expert ranges. Axis edp = W / ep
// replicates them: ranks with the same rank % ep hold the same experts. "Axis" is for meshes,
// "dimension" for tensors. Used by the planner and by the trainer.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

class Mesh {
 public:
  // InvalidArgument, naming the field, unless expert_parallel divides world_size and num_experts
  // (num_experts 0: a model without experts, expert_parallel must be 1).
  static absl::StatusOr<Mesh> Create(int world_size, int expert_parallel, int num_experts);

  int world_size() const { return world_size_; }
  int expert_parallel() const { return expert_parallel_; }
  int expert_data_parallel() const { return world_size_ / expert_parallel_; }
  int experts_per_rank() const { return num_experts_ / expert_parallel_; }

  int ep_rank(int rank) const { return rank % expert_parallel_; }
  int edp_rank(int rank) const { return rank / expert_parallel_; }
  // First expert of `rank`.
  int first_expert(int rank) const { return ep_rank(rank) * experts_per_rank(); }
  // Ranks of the ep group of `rank`, in ep order.
  std::vector<int> EpGroup(int rank) const;
  // Ranks that hold the same experts as `rank`, in edp order.
  std::vector<int> EdpGroup(int rank) const;

 private:
  Mesh(int world_size, int expert_parallel, int num_experts)
      : world_size_(world_size), expert_parallel_(expert_parallel), num_experts_(num_experts) {}

  int world_size_;
  int expert_parallel_;
  int num_experts_;
};

}  // namespace switchyard
