#include "common/http/http_client.h"

#include <httplib.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard::http {

absl::StatusOr<Response> Get(const std::string& address, const std::string& path,
                             const std::string& authority) {
  const std::string url = absl::StrCat(authority.empty() ? "http://" : "https://", address);
  httplib::Client client(url);
  if (!authority.empty()) client.set_ca_cert_path(authority);
  client.set_connection_timeout(2);
  client.set_read_timeout(2);
  const httplib::Result answer = client.Get(path);
  if (!answer) {
    return absl::UnavailableError(
        absl::StrCat(url, path, ": ", httplib::to_string(answer.error())));
  }
  Response response = TextResponse(answer->status, answer->body);
  response.content_type = answer->get_header_value("Content-Type");
  return response;
}

}  // namespace switchyard::http
