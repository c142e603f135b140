// Gives every RPC a trace id: the caller's, from its traceparent metadata, or a new one.
//
// The answer's metadata says the server's version and time, for `switchyard doctor`.
//
// Handlers read the id with TraceId; errors carry it in their ErrorInfo ("trace_id"), and those
// that are the service's own fault are logged with it.
#pragma once

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_interceptor.h>

#include <string>

namespace switchyard::coordinator {

inline constexpr char kVersionKey[] = "switchyard-version";
inline constexpr char kTimeKey[] = "switchyard-time-ms";  // since the Unix epoch

class TraceCalls final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override;
};

// Of a call of a server with TraceCalls; empty without.
std::string TraceId(const grpc::ServerContextBase& context);

}  // namespace switchyard::coordinator
