// Sends lines to the agent (fd 3) from a thread of its own, so that a slow reader never blocks
// training.
//
// The queue is bounded for metrics: the newest is dropped when it is full. Lifecycle lines are
// never dropped.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "common/unique_fd.h"

namespace switchyard::trainer {

class Reporter {
 public:
  static constexpr size_t kMaxQueuedMetrics = 256;

  // With an invalid fd lines go nowhere.
  explicit Reporter(UniqueFd fd);
  // Writes what is queued, then ends.
  ~Reporter();
  Reporter(const Reporter&) = delete;
  Reporter& operator=(const Reporter&) = delete;

  void Lifecycle(const std::string& line) { Enqueue(line, false); }
  void Metric(const std::string& line) { Enqueue(line, true); }
  // Metrics dropped so far.
  int64_t dropped() const;

 private:
  struct Entry {
    std::string line;
    bool metric;
  };
  void Enqueue(const std::string& line, bool metric);
  void Run();

  UniqueFd fd_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> queue_;
  size_t queued_metrics_ = 0;
  int64_t dropped_ = 0;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace switchyard::trainer
