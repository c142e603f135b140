#include "coordinator/report/rpc_metrics.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string>
#include <utility>

#include "absl/status/status.h"

namespace switchyard::coordinator {
namespace {

using grpc::experimental::InterceptionHookPoints;

// Methods of gRPC's own services, as far as they are served.
constexpr const char* kOfGrpc[] = {
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
};

class Interceptor final : public grpc::experimental::Interceptor {
 public:
  Interceptor(grpc::experimental::ServerRpcInfo* info, std::string method, telemetry::Counter calls,
              telemetry::Histogram seconds, telemetry::Gauge open)
      : method_(std::move(method)),
        unary_(info->type() == grpc::experimental::ServerRpcInfo::Type::UNARY),
        calls_(calls),
        seconds_(seconds),
        open_(open) {
    open_.Add(1, {method_});
  }
  ~Interceptor() override { open_.Add(-1, {method_}); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      const auto code = static_cast<absl::StatusCode>(methods->GetSendStatus().error_code());
      calls_.Increment(1, {method_, absl::StatusCodeToString(code)});
      // A stream lives as long as its client wants: its time says nothing of the server.
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start_;
      if (unary_) seconds_.Observe(took.count(), {method_});
    }
    methods->Proceed();
  }

 private:
  const std::string method_;
  const bool unary_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  telemetry::Counter calls_;
  telemetry::Histogram seconds_;
  telemetry::Gauge open_;
};

}  // namespace

RpcMetrics::RpcMetrics(telemetry::Registry& registry,
                       std::function<bool(const std::string&)> is_known)
    : is_known_(std::move(is_known)),
      calls_(registry.AddCounter("switchyard_rpcs_total", "RPCs that ended, by method and code.",
                                 {"method", "code"})),
      seconds_(registry.AddHistogram("switchyard_rpc_seconds", "Time of a unary RPC.",
                                     telemetry::LatencyBuckets(), {"method"})),
      open_(registry.AddGauge("switchyard_rpcs_open", "RPCs that have not ended.", {"method"})) {}

std::string RpcMetrics::Label(const std::string& path) const {
  const std::string method = path.substr(path.empty() ? 0 : 1);  // "/service/method"
  const bool named = std::count(std::begin(kOfGrpc), std::end(kOfGrpc), method) > 0;
  if (!named && !is_known_(method)) return "other";
  return method.substr(method.rfind('.', method.find('/')) + 1);  // without the package
}

grpc::experimental::Interceptor* RpcMetrics::CreateServerInterceptor(
    grpc::experimental::ServerRpcInfo* info) {
  return new Interceptor(info, Label(info->method()), calls_, seconds_, open_);
}

}  // namespace switchyard::coordinator
