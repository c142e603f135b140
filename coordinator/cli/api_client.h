// Calls to the coordinator: deadlines, rich errors, and a hint when nobody answers.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/status.h"
#include "common/trace.h"
#include "coordinator/cli/cli_context.h"
#include "switchyard/v1/access.grpc.pb.h"
#include "switchyard/v1/checkpoint.grpc.pb.h"
#include "switchyard/v1/job_service.grpc.pb.h"
#include "switchyard/v1/node.grpc.pb.h"

namespace switchyard::coordinator {

class ApiClient {
 public:
  // Trouble with certificate or token is what the first call then returns.
  explicit ApiClient(const Endpoint& endpoint);

  // One unary call: client.Call(&v1::JobService::Stub::GetJob, client.jobs(), request).
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                             Response*),
                                Stub& stub, const Request& request,
                                absl::Duration timeout = absl::Seconds(30)) const {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    context.AddMetadata(kTraceparentKey, Traceparent(trace_id_));
    Response response;
    const grpc::Status status = (stub.*method)(&context, request, &response);
    if (!status.ok()) return Error(status);
    return response;
  }

  v1::JobService::Stub& jobs() const { return *jobs_; }
  v1::CheckpointService::Stub& checkpoints() const { return *checkpoints_; }
  v1::NodeService::Stub& nodes() const { return *nodes_; }
  v1::AccessService::Stub& access() const { return *access_; }

  // UNAVAILABLE gets the address and how to start or reach a coordinator.
  absl::Status Error(const grpc::Status& status) const;

 private:
  std::string address_;
  // One a command; of TRACEPARENT when the caller is being traced.
  std::string trace_id_;
  bool tls_;
  absl::Status setup_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
  std::unique_ptr<v1::CheckpointService::Stub> checkpoints_;
  std::unique_ptr<v1::NodeService::Stub> nodes_;
  std::unique_ptr<v1::AccessService::Stub> access_;
};

// Delay before the n-th reconnection (0-based): full jitter, 0.2 s doubling to 10 s.
absl::Duration ReconnectDelay(int attempt, double uniform01);
// The same with a random draw, and the wait itself.
void SleepBeforeReconnect(int attempt);

// 32 hexadecimal digits from the system's random source.
std::string RandomRequestId();

}  // namespace switchyard::coordinator
