// One plain GET, for programs that look whether something answers.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/http/http_server.h"

namespace switchyard::http {

// `address` is "HOST:PORT". Unavailable when nothing answers HTTP there within two seconds.
absl::StatusOr<Response> Get(const std::string& address, const std::string& path);

}  // namespace switchyard::http
