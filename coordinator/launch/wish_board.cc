#include "coordinator/launch/wish_board.h"

#include <algorithm>
#include <utility>

namespace switchyard::coordinator {
namespace {

bool SameWish(const std::vector<Allocation>& a, const std::vector<Allocation>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Allocation& x, const Allocation& y) {
                      return x.attempt == y.attempt && x.keep == y.keep;
                    });
}

}  // namespace

void WishBoard::Want(const std::string& store_id, std::vector<Allocation> allocations) {
  absl::MutexLock lock(&mutex_);
  changed_ = changed_ || !wish_.told || !SameWish(wish_.allocations, allocations);
  wish_ = {store_id, std::move(allocations), true};
}

AllocationStatus WishBoard::Look(const AttemptKey& attempt) const {
  absl::MutexLock lock(&mutex_);
  const auto it = seen_.find(attempt);
  return it == seen_.end() ? AllocationStatus() : it->second;
}

bool WishBoard::Next(absl::Duration timeout, Wish* wish) {
  absl::MutexLock lock(&mutex_);
  const auto due = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return stopping_ || changed_; };
  mutex_.AwaitWithTimeout(absl::Condition(&due), timeout);
  changed_ = false;
  *wish = wish_;
  return !stopping_;
}

void WishBoard::Show(Seen seen) {
  absl::MutexLock lock(&mutex_);
  seen_ = std::move(seen);
}

void WishBoard::Wake() {
  absl::MutexLock lock(&mutex_);
  changed_ = true;
}

void WishBoard::Stop() {
  absl::MutexLock lock(&mutex_);
  stopping_ = true;
}

}  // namespace switchyard::coordinator
