// Hands work from other threads (gRPC, files) to the agent's loop.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <functional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "common/check.h"
#include "common/unique_fd.h"

namespace switchyard::agent {

class Inbox {
 public:
  Inbox() : event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    SWITCHYARD_CHECK(event_.valid(), "eventfd failed");
  }

  // From any thread; `work` runs on the loop's thread.
  void Post(std::function<void()> work) {
    {
      absl::MutexLock lock(&mutex_);
      work_.push_back(std::move(work));
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof(one));
  }
  // Readable when there is work.
  int fd() const { return event_.get(); }
  void RunAll() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(event_.get(), &count, sizeof(count));
    std::vector<std::function<void()>> work;
    {
      absl::MutexLock lock(&mutex_);
      work.swap(work_);
    }
    for (auto& item : work) item();
  }

 private:
  UniqueFd event_;
  absl::Mutex mutex_;
  std::vector<std::function<void()>> work_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::agent
