#include "common/telemetry/exposer.h"

#include <arpa/inet.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>

#include <exception>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace switchyard::telemetry {
namespace {

absl::Status BadAddress(const std::string& address) {
  return absl::InvalidArgumentError(
      absl::StrCat("metrics address \"", address,
                   "\" is not HOST:PORT with a numeric host, for example 127.0.0.1:9464"));
}

bool IsNumericHost(const std::string& host) {
  in_addr v4;
  in6_addr v6;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return true;
  if (host.size() < 2 || host.front() != '[' || host.back() != ']') return false;
  return inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &v6) == 1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Exposer>> Exposer::Start(const Registry& registry,
                                                        const std::string& address) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos) return BadAddress(address);
  std::string host = address.substr(0, colon);
  if (host == "localhost") host = "127.0.0.1";
  int port = 0;
  if (!IsNumericHost(host) || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return BadAddress(address);
  }
  const std::string bind_to = absl::StrCat(host, ":", port);
  try {
    // One thread: a scrape every few seconds is all that comes.
    auto exposer = std::make_unique<prometheus::Exposer>(bind_to, 1);
    exposer->RegisterCollectable(registry.prometheus());
    const std::vector<int> ports = exposer->GetListeningPorts();
    if (ports.empty()) return absl::InternalError("the metrics server opened no port");
    return std::unique_ptr<Exposer>(new Exposer(std::move(exposer), host, ports.front()));
  } catch (const std::exception&) {
    // civetweb says only that it could not start; a taken port is the usual cause.
    return absl::UnavailableError(
        absl::StrCat("cannot serve metrics on ", bind_to,
                     ": the port is taken or the address is not of this machine; "
                     "choose another with --metrics HOST:PORT (port 0 lets the system choose)"));
  }
}

Exposer::Exposer(std::unique_ptr<prometheus::Exposer> exposer, std::string host, int port)
    : exposer_(std::move(exposer)), address_(absl::StrCat(host, ":", port)), port_(port) {}

Exposer::~Exposer() = default;

}  // namespace switchyard::telemetry
