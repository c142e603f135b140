// Serves StreamLogs from the log store: what is there, then what comes, until the job has ended.
#pragma once

#include <grpcpp/grpcpp.h>

#include <set>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "coordinator/history/log_store.h"
#include "coordinator/service/published_state.h"
#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

class LogHub {
 public:
  using Reactor = grpc::ServerWriteReactor<v1::StreamLogsResponse>;

  LogHub(const PublishedState& state, const LogStore& logs);
  ~LogHub();

  // A new reader; it owns itself and ends with its call.
  Reactor* Stream(const v1::StreamLogsRequest& request);
  // Ends all readers with UNAVAILABLE. New ones end at once.
  void Close();

 private:
  class Reader;

  void Run();

  const PublishedState& state_;
  const LogStore& logs_;
  absl::Mutex mutex_;
  std::set<Reader*> readers_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard::coordinator
