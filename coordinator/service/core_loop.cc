#include "coordinator/service/core_loop.h"

#include "absl/time/time.h"

namespace switchyard::coordinator {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(100);  // leases, back-offs, resends

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

}  // namespace

void CoreLoop::Start() {
  thread_ = std::thread([this] { Run(); });
}

void CoreLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

bool CoreLoop::Post(std::function<void(Core&)> change,
                    std::function<void(Core&, const absl::Status&)> done) {
  absl::MutexLock lock(&mutex_);
  if (stopping_) return false;
  tasks_.push_back({std::move(change), std::move(done), SteadyClock::now()});
  return true;
}

void CoreLoop::Run() {
  while (true) {
    std::vector<Task> tasks;
    bool last;
    {
      absl::MutexLock lock(&mutex_);
      const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
        return stopping_ || !tasks_.empty();
      };
      mutex_.AwaitWithTimeout(absl::Condition(&ready), kTick);
      tasks.swap(tasks_);
      last = stopping_;
    }
    for (Task& task : tasks) {
      if (series_ != nullptr) series_->writer_wait.Observe(SecondsSince(task.posted));
      if (task.change) task.change(core_);
    }
    const auto begin = SteadyClock::now();
    const absl::Status status = core_.Flush();
    if (series_ != nullptr && !tasks.empty()) {
      series_->store_write.Observe(SecondsSince(begin));
      series_->store_errors.Increment(status.ok() ? 0 : 1);
    }
    for (Task& task : tasks) {
      if (task.done) task.done(core_, status);
    }
    // A failed store is tried again with the next tick; jobs keep running meanwhile.
    if (status.ok()) (void)core_.Step();
    turns_.fetch_add(1, std::memory_order_relaxed);
    if (last) return;
  }
}

}  // namespace switchyard::coordinator
