// Serves StreamLogs from the log store: what is there, then what comes, until the job has ended.
#pragma once

#include <grpcpp/grpcpp.h>

#include "coordinator/history/log_store.h"
#include "coordinator/service/published_state.h"
#include "coordinator/service/stream_hub.h"
#include "switchyard/v1/job_service.pb.h"

namespace switchyard::coordinator {

class LogHub {
 public:
  using Reactor = grpc::ServerWriteReactor<v1::StreamLogsResponse>;

  LogHub(const PublishedState& state, const LogStore& logs);

  // A new reader; it owns itself and ends with its call.
  Reactor* Stream(const v1::StreamLogsRequest& request);
  // Ends all readers with UNAVAILABLE. New ones end at once.
  void Close() { readers_.Close(); }

 private:
  class Reader;

  const PublishedState& state_;
  const LogStore& logs_;
  StreamHub<v1::StreamLogsResponse> readers_;
};

}  // namespace switchyard::coordinator
