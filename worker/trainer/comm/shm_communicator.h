// Communicator between processes of one machine, over the staging buffers of a ShmGroup.
//
// A tensor passes through in chunks of the staging size. The two staging buffers of a member
// alternate, so a chunk costs one barrier (two for a large all-reduce, whose sum is shared out
// between the ranks).
#pragma once

#include <memory>

#include "worker/trainer/comm/communicator.h"
#include "worker/trainer/comm/shm_group.h"

namespace switchyard::trainer {

class ShmCommunicator final : public Communicator {
 public:
  explicit ShmCommunicator(std::shared_ptr<ShmGroup> group) : group_(std::move(group)) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  void AllReduce(at::Tensor tensor) override;
  void AllReduceMax(at::Tensor tensor) override;
  void ReduceScatter(const at::Tensor& input, at::Tensor output) override;
  void AllGather(const at::Tensor& input, at::Tensor output) override;
  void Broadcast(at::Tensor tensor, int root) override;
  void Barrier() override { group_->Barrier(); }

 private:
  // Buffer for the next chunk. Safe to write: all have passed the barrier of the chunk before,
  // hence have read what the buffer held last.
  int NextBuffer() { return buffer_ ^= 1; }

  std::shared_ptr<ShmGroup> group_;
  int buffer_ = 0;
};

}  // namespace switchyard::trainer
