// How unary calls reach the writer thread and come back, in one place.
#pragma once

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <string>

#include "common/rpc/status.h"
#include "coordinator/service/core_loop.h"

namespace switchyard::coordinator {

// Answers at once.
inline grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(rpc::ToGrpcStatus(status));
  return reactor;
}

// Runs `change` on the writer thread; when it succeeds and is stored, `answer` fills the response there.
inline grpc::ServerUnaryReactor* OnWriter(
    grpc::CallbackServerContext* context, CoreLoop& loop,
    std::function<absl::StatusOr<std::string>(Core&)> change,
    std::function<void(Core&, const std::string&)> answer) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto result = std::make_shared<absl::StatusOr<std::string>>(absl::UnknownError("not run"));
  const bool posted = loop.Post(
      [result, change = std::move(change)](Core& core) { *result = change(core); },
      [result, reactor, answer = std::move(answer)](Core& core, const absl::Status& stored) {
        if (result->ok() && stored.ok()) answer(core, **result);
        reactor->Finish(rpc::ToGrpcStatus(result->ok() ? stored : result->status()));
      });
  if (!posted) reactor->Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the coordinator is shutting down"));
  return reactor;
}

}  // namespace switchyard::coordinator
