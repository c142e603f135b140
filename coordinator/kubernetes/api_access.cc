#include "coordinator/kubernetes/api_access.h"

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

absl::StatusOr<std::string> ReadWord(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  std::string word(absl::StripAsciiWhitespace(text.str()));
  if (!in || word.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " cannot be read or is empty"));
  }
  return word;
}

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

absl::StatusOr<ApiAccess> FindApiServer(const launch::v1::KubernetesConfig& config,
                                        const std::string& service_account) {
  ApiAccess access;
  access.namespace_ = config.namespace_();
  if (config.has_api_server()) {
    access.url = config.api_server().url();
    access.ca_file = config.api_server().ca_file();
    access.token_file = config.api_server().token_file();
  } else {
    const std::string host = Environment("KUBERNETES_SERVICE_HOST");
    const std::string port = Environment("KUBERNETES_SERVICE_PORT");
    if (host.empty() || port.empty()) {
      return absl::FailedPreconditionError(
          "--kubernetes: this is no pod (KUBERNETES_SERVICE_HOST and _PORT are not set): give "
          "api_server with url, ca_file and token_file");
    }
    access.url = absl::StrContains(host, ':') ? absl::StrCat("https://[", host, "]:", port)
                                              : absl::StrCat("https://", host, ":", port);
    access.ca_file = absl::StrCat(service_account, "/ca.crt");
    access.token_file = absl::StrCat(service_account, "/token");
    if (access.namespace_.empty()) {
      SWITCHYARD_ASSIGN_OR_RETURN(access.namespace_,
                                  ReadWord(absl::StrCat(service_account, "/namespace")));
    }
  }
  while (absl::EndsWith(access.url, "/")) access.url.pop_back();
  // Better said at the start than with every request.
  SWITCHYARD_RETURN_IF_ERROR(ReadWord(access.ca_file).status());
  SWITCHYARD_RETURN_IF_ERROR(ReadWord(access.token_file).status());
  return access;
}

absl::StatusOr<std::string> TokenFile::Get(absl::Time now) {
  if (now - read_ < absl::Minutes(1) && now >= read_) return token_;
  absl::StatusOr<std::string> token = ReadWord(path_);
  if (token.ok()) {
    token_ = *std::move(token);
    read_ = now;
  } else if (token_.empty()) {
    return token.status();
  }
  return token_;
}

}  // namespace switchyard::coordinator
