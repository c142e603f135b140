// Serves WatchJobs: every watcher walks through the published changes at its own pace.
#pragma once

#include <grpcpp/grpcpp.h>

#include <set>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "coordinator/history/metrics_store.h"
#include "coordinator/service/published_state.h"
#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

class WatchHub {
 public:
  using Reactor = grpc::ServerWriteReactor<v1::WatchJobsResponse>;

  WatchHub(const PublishedState& state, MetricsStore& metrics);
  ~WatchHub();

  // A new watcher; it owns itself and ends with its call.
  Reactor* Watch(const v1::WatchJobsRequest& request);
  // Something was published. Any thread; returns at once.
  void Notify();
  // Ends all watchers with UNAVAILABLE; they resume with their tokens. New ones end at once.
  void Close();

 private:
  class Watcher;

  void Run();

  const PublishedState& state_;
  MetricsStore& metrics_;
  absl::Mutex mutex_;
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // Apart from the above, so that Notify never waits for a watcher.
  absl::Mutex news_mutex_;
  bool news_ ABSL_GUARDED_BY(news_mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(news_mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard::coordinator
