// One plain GET, for programs that look whether something answers.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/http/http_server.h"

namespace switchyard::http {

// `address` is "HOST:PORT"; with `authority`, a PEM file, by TLS with a certificate that it vouches
// for. Unavailable when nothing answers so within two seconds.
absl::StatusOr<Response> Get(const std::string& address, const std::string& path,
                             const std::string& authority = "");

}  // namespace switchyard::http
