#include "coordinator/cli/watch_stream.h"

#include <memory>

#include "absl/time/clock.h"

namespace switchyard::coordinator {
namespace {

enum class After { kResume, kStartAnew, kGiveUp };

// A slow reader is cut off with RESOURCE_EXHAUSTED or ABORTED and may go on with its token.
After WhatNext(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::OK:
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::CANCELLED:
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return After::kResume;
    case grpc::StatusCode::OUT_OF_RANGE:
      return After::kStartAnew;
    default:
      return After::kGiveUp;
  }
}

}  // namespace

absl::Status WatchJob(const ApiClient& client, const WatchOptions& options,
                      const WatchHandlers& handlers) {
  std::string token;
  bool ever_connected = false;
  bool lost = false;
  int attempt = 0;
  absl::Time last_answer = absl::Now();
  while (true) {
    grpc::ClientContext context;
    v1::WatchJobsRequest request;
    request.set_parent(options.name);
    request.set_resume_token(token);
    auto stream = client.jobs().WatchJobs(&context, request);
    v1::WatchJobsResponse message;
    while (stream->Read(&message)) {
      if (lost) handlers.on_back();
      lost = false;
      ever_connected = true;
      attempt = 0;
      last_answer = absl::Now();
      if (!message.resume_token().empty()) token = message.resume_token();
      if (!handlers.on_message(message)) {
        context.TryCancel();
        stream->Finish();
        return absl::OkStatus();
      }
    }
    const grpc::Status status = stream->Finish();
    const After next = WhatNext(status);
    if (next == After::kGiveUp) return client.Error(status);
    if (next == After::kStartAnew) token.clear();
    const absl::Duration patience =
        ever_connected ? options.lost_retry_for : options.first_retry_for;
    if (absl::Now() - last_answer >= patience) {
      return status.ok() ? absl::UnavailableError("the coordinator keeps closing the watch")
                         : client.Error(status);
    }
    lost = true;
    handlers.on_lost(client.Error(status));
    SleepBeforeReconnect(attempt++);
  }
}

}  // namespace switchyard::coordinator
