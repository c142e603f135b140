// SymmetricWindow over the window regions and flags of a ShmGroup.
#pragma once

#include <memory>
#include <utility>

#include "worker/trainer/comm/shm_group.h"
#include "worker/trainer/comm/symmetric_window.h"

namespace switchyard::trainer {

class ShmWindow final : public SymmetricWindow {
 public:
  static_assert(ShmGroup::kFlags == SymmetricWindow::kNumFlags);

  explicit ShmWindow(std::shared_ptr<ShmGroup> group) : group_(std::move(group)) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  int64_t bytes() const override { return group_->window_bytes(); }
  std::byte* peer(int rank) override { return group_->window(rank); }
  void Signal(int to, int flag) override { group_->Signal(to, flag); }
  void Wait(int from, int flag) override { group_->Wait(from, flag); }

 private:
  std::shared_ptr<ShmGroup> group_;
};

}  // namespace switchyard::trainer
