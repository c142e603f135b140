// Between the core and the thread of an allocator: what is wanted goes one way, what was seen the
// other. Thread-safe; knows nothing of any cluster.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/launch/node_allocator.h"

namespace switchyard::coordinator {

struct Wish {
  std::string store_id;
  std::vector<Allocation> allocations;
  bool told = false;  // false before the store has spoken: nothing is known to be over
};

class WishBoard {
 public:
  using Seen = std::map<AttemptKey, AllocationStatus>;

  // See NodeAllocator.
  void Want(const std::string& store_id, std::vector<Allocation> allocations);
  AllocationStatus Look(const AttemptKey& attempt) const;

  // Waits until something else is wanted, Wake was called or `timeout` is over. False: Stop was
  // called.
  bool Next(absl::Duration timeout, Wish* wish);
  // Replaces what Look answers.
  void Show(Seen seen);
  void Wake();
  void Stop();

 private:
  mutable absl::Mutex mutex_;
  Wish wish_ ABSL_GUARDED_BY(mutex_);
  Seen seen_ ABSL_GUARDED_BY(mutex_);
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;  // since Next returned
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard::coordinator
