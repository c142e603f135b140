// Serves a Registry as http://ADDRESS/metrics.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/telemetry/registry.h"

namespace prometheus {
class Exposer;
}

namespace switchyard::telemetry {

class Exposer {
 public:
  // `address` is "HOST:PORT" with a numeric host (IPv6 in brackets) or "localhost"; port 0 lets the
  // system choose. `registry` must outlive the exposer. InvalidArgument when the address cannot be
  // read, Unavailable when it cannot be bound (port taken).
  static absl::StatusOr<std::unique_ptr<Exposer>> Start(const Registry& registry,
                                                        const std::string& address);
  ~Exposer();
  Exposer(const Exposer&) = delete;
  Exposer& operator=(const Exposer&) = delete;

  // "HOST:PORT" with the port that is really open.
  const std::string& address() const { return address_; }
  int port() const { return port_; }

 private:
  Exposer(std::unique_ptr<prometheus::Exposer> exposer, std::string host, int port);

  std::unique_ptr<prometheus::Exposer> exposer_;
  std::string address_;
  int port_;
};

}  // namespace switchyard::telemetry
