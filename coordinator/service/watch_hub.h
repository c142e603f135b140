// Serves WatchJobs: every watcher walks through the published changes at its own pace.
#pragma once

#include <grpcpp/grpcpp.h>

#include "coordinator/history/metrics_store.h"
#include "coordinator/service/published_state.h"
#include "coordinator/service/stream_hub.h"
#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

class WatchHub {
 public:
  using Reactor = grpc::ServerWriteReactor<v1::WatchJobsResponse>;

  WatchHub(const PublishedState& state, MetricsStore& metrics);

  // A new watcher; it owns itself and ends with its call.
  Reactor* Watch(const v1::WatchJobsRequest& request);
  // Something was published. Any thread; returns at once.
  void Notify() { watchers_.Notify(); }
  // Ends all watchers with UNAVAILABLE; they resume with their tokens. New ones end at once.
  void Close() { watchers_.Close(); }

 private:
  class Watcher;

  const PublishedState& state_;
  MetricsStore& metrics_;
  StreamHub<v1::WatchJobsResponse> watchers_;
};

}  // namespace switchyard::coordinator
