// The one writer thread: runs what others post, stores it, answers, then lets the reconciler move.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/reconcile/core.h"
#include "coordinator/report/service_series.h"

namespace switchyard::coordinator {

class CoreLoop {
 public:
  // `series` is borrowed; null for none.
  explicit CoreLoop(Core& core, const ServiceSeries* series = nullptr)
      : core_(core), series_(series) {}
  ~CoreLoop() { Stop(); }

  // `core` has been started.
  void Start();
  // Runs what was posted before, then ends the thread. What is posted later is dropped. Idempotent.
  void Stop();

  // Runs `change` on the writer thread, and `done` there too once everything that it changed is
  // stored, with the store's error when it is not. Either may be empty. Any thread. False when the
  // loop has ended: neither will run.
  bool Post(std::function<void(Core&)> change,
            std::function<void(Core&, const absl::Status&)> done = {});

  // Grows several times a second while the writer thread gets on. Any thread.
  int64_t turns() const { return turns_.load(std::memory_order_relaxed); }

 private:
  struct Task {
    std::function<void(Core&)> change;
    std::function<void(Core&, const absl::Status&)> done;
    std::chrono::steady_clock::time_point posted;
  };

  void Run();

  Core& core_;
  const ServiceSeries* const series_;
  absl::Mutex mutex_;
  std::vector<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<int64_t> turns_{0};
  std::thread thread_;
};

}  // namespace switchyard::coordinator
