#include "common/telemetry/metrics_page.h"

namespace switchyard::telemetry {

http::Handler MetricsPage(const Registry& registry) {
  return [&registry](const http::Request&) {
    http::Response response = http::TextResponse(200, registry.Serialize());
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    return response;
  };
}

}  // namespace switchyard::telemetry
