// A Registry as an HTTP page for Prometheus.
#pragma once

#include "common/http/http_server.h"
#include "common/telemetry/registry.h"

namespace switchyard::telemetry {

// Answers with Serialize(); for /metrics. `registry` must outlive the handler.
http::Handler MetricsPage(const Registry& registry);

}  // namespace switchyard::telemetry
