// Where the API server of a cluster is, and the token by which the coordinator is known to it.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "switchyard/launch/v1/kubernetes.pb.h"

namespace switchyard::coordinator {

struct ApiAccess {
  std::string url;         // "https://HOST:PORT", no slash at the end
  std::string ca_file;     // PEM
  std::string token_file;  // its content rotates
  std::string namespace_;
};

// What Kubernetes puts into every pod that has a service account.
inline constexpr char kServiceAccount[] = "/var/run/secrets/kubernetes.io/serviceaccount";

// As the configuration says, else as `service_account` and KUBERNETES_SERVICE_HOST and _PORT do.
// FailedPrecondition, with the way out, when neither says it.
absl::StatusOr<ApiAccess> FindApiServer(const launch::v1::KubernetesConfig& config,
                                        const std::string& service_account = kServiceAccount);

// Of one thread.
class TokenFile {
 public:
  explicit TokenFile(std::string path) : path_(std::move(path)) {}

  // The token, read again when it is a minute old. A file that cannot be read counts only when
  // there was no token before.
  absl::StatusOr<std::string> Get(absl::Time now);
  // The next Get reads the file.
  void Expire() { read_ = absl::InfinitePast(); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::string token_;
  absl::Time read_ = absl::InfinitePast();
};

}  // namespace switchyard::coordinator
