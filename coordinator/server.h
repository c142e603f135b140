// The coordinator as a whole: owns every part, starts and stops them in one place and order.
#pragma once

#include <grpcpp/support/server_interceptor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/http/http_server.h"
#include "coordinator/access/access_setup.h"
#include "coordinator/plan/device_rates.h"
#include "coordinator/reconcile/core_context.h"
#include "coordinator/report/job_observer.h"
#include "coordinator/report/service_series.h"

namespace switchyard::coordinator {

struct ServerOptions {
  std::string listen = "127.0.0.1:7070";  // port 0 takes a free one
  std::string state_dir;
  std::string version;  // of the program, noted in the store
  AccessOptions access;
  CoreOptions core;
  std::vector<JobObserver*> observers;      // borrowed; outlive the server
  std::vector<CalibratedRates> calibrated;  // of devices, for predictions
  NodeAllocator* allocator = nullptr;       // borrowed; null: jobs run where agents dial in
  const ServiceSeries* series = nullptr;    // borrowed; null for none
  // Bound, not yet served; the coordinator adds its pages. Null: no HTTP.
  std::unique_ptr<http::Server> http;
  // Around every RPC.
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
};

class Server {
 public:
  // Serving when it returns. InvalidArgument for a bad address or one that is not safe to serve on,
  // FailedPrecondition for certificates that cannot be used, Unavailable for a taken port or a
  // locked state directory, PermissionDenied for an unwritable one, DataLoss for a damaged store.
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options);
  // Drains: no new calls, streams end with UNAVAILABLE, everything accepted is stored.
  ~Server();

  // "127.0.0.1:7070" as bound.
  const std::string& address() const;
  // Grows while the coordinator gets on with its work; what a watchdog looks at.
  int64_t turns() const;
  // The same of HTTP; empty without.
  std::string http_address() const;
  // Writes a file into the state directory, for scripts that wait for it; "listen-address" is
  // written at start.
  absl::Status WriteStateFile(const std::string& name, const std::string& text) const;

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

// "HOST:PORT", else InvalidArgument naming `flag`.
absl::Status CheckAddress(const std::string& flag, const std::string& address);
// The same, of the loopback interface.
absl::Status CheckLoopback(const std::string& flag, const std::string& address);

}  // namespace switchyard::coordinator
