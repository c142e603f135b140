// Counts every RPC of a gRPC server by method and code, those that are open, and times unary ones.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <functional>
#include <string>

#include "common/telemetry/registry.h"

namespace switchyard::coordinator {

// For ServerBuilder::experimental().SetInterceptorCreators. Register one per server, once per
// registry.
class RpcMetrics final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  // `is_known` of a method like "switchyard.v1.JobService/GetJob": besides health and reflection
  // only such get series of their own, all others together are "other". Anyone who reaches the port
  // chooses a path, of any bytes.
  RpcMetrics(telemetry::Registry& registry, std::function<bool(const std::string&)> is_known);

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  // The value of label "method".
  std::string Label(const std::string& path) const;

  const std::function<bool(const std::string&)> is_known_;
  telemetry::Counter calls_;
  telemetry::Histogram seconds_;
  telemetry::Gauge open_;
};

}  // namespace switchyard::coordinator
