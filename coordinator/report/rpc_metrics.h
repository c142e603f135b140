// Counts every RPC of a gRPC server by method and code, those that are open, and times unary ones.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include "common/telemetry/registry.h"

namespace switchyard::coordinator {

// For ServerBuilder::experimental().SetInterceptorCreators. Register one per server, once per
// registry.
class RpcMetrics final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit RpcMetrics(telemetry::Registry& registry);

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;

 private:
  telemetry::Counter calls_;
  telemetry::Histogram seconds_;
  telemetry::Gauge open_;
};

}  // namespace switchyard::coordinator
