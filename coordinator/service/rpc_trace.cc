#include "coordinator/service/rpc_trace.h"

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/log.h"
#include "common/trace.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace switchyard::coordinator {
namespace {

using grpc::experimental::InterceptionHookPoints;

// Not the caller's doing. RESOURCE_EXHAUSTED is a caller's limit; a full disk is told of by the
// store itself.
bool IsServersFault(grpc::StatusCode code) {
  return code == grpc::StatusCode::INTERNAL || code == grpc::StatusCode::UNKNOWN ||
         code == grpc::StatusCode::DATA_LOSS;
}

// The status with `trace_id` in its ErrorInfo. A status that gRPC itself made has no details yet.
grpc::Status WithTrace(const grpc::Status& status, const std::string& trace_id) {
  google::rpc::Status rich;
  if (!rich.ParseFromString(status.error_details()) || rich.code() == 0) {
    rich.Clear();
    rich.set_code(status.error_code());
    rich.set_message(status.error_message());
  }
  google::rpc::ErrorInfo info;
  auto* holder = [&]() -> google::protobuf::Any* {
    for (auto& detail : *rich.mutable_details()) {
      if (detail.UnpackTo(&info)) return &detail;
    }
    info.set_reason(absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())));
    info.set_domain("switchyard");
    return rich.add_details();
  }();
  (*info.mutable_metadata())["trace_id"] = trace_id;
  holder->PackFrom(info);
  return {status.error_code(), status.error_message(), rich.SerializeAsString()};
}

class Interceptor final : public grpc::experimental::Interceptor {
 public:
  explicit Interceptor(const char* method) : method_(method) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA)) {
      auto* metadata = methods->GetRecvInitialMetadata();
      const auto sent = metadata->find(kTraceparentKey);
      std::optional<std::string> id;
      if (sent != metadata->end())
        id = TraceIdOf(std::string(sent->second.data(), sent->second.size()));
      trace_id_ = id.has_value() ? *id : NewTraceId();
      // So that the handler finds it in either case; this lives as long as the call.
      metadata->erase(kTraceparentKey);
      traceparent_ = Traceparent(trace_id_);
      metadata->emplace(kTraceparentKey, traceparent_);
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      auto* metadata = methods->GetSendInitialMetadata();
      metadata->emplace(kVersionKey, SWITCHYARD_VERSION);
      metadata->emplace(kTimeKey, absl::StrCat(absl::ToUnixMillis(absl::Now())));
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const grpc::Status status = methods->GetSendStatus();
      if (!status.ok()) {
        if (IsServersFault(status.error_code())) {
          log::Error("rpc.failed", {{"method", method_},
                                    {"code", static_cast<int>(status.error_code())},
                                    {"error", status.error_message()},
                                    {"trace_id", trace_id_}});
        }
        methods->ModifySendStatus(WithTrace(status, trace_id_));
      }
    }
    methods->Proceed();
  }

 private:
  const std::string method_;
  std::string trace_id_ = NewTraceId();
  std::string traceparent_;
};

}  // namespace

grpc::experimental::Interceptor* TraceCalls::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  return new Interceptor(info->method());
}

std::string TraceId(const grpc::ServerContextBase& context) {
  const auto found = context.client_metadata().find(kTraceparentKey);
  if (found == context.client_metadata().end()) return "";
  return TraceIdOf(std::string(found->second.data(), found->second.size())).value_or("");
}

}  // namespace switchyard::coordinator
