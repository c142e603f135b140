// Certificates as files and as what they say: where they lie, whether they can be used, whose they
// are.
//
// A directory of certificates holds ca.crt (whom to trust), tls.crt and tls.key (who this is), the
// names that Kubernetes gives to the keys of a TLS secret. Knows nothing of gRPC and HTTP.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace switchyard::security {

struct CertificateFiles {
  std::string authority;    // PEM, one certificate or several
  std::string certificate;  // PEM, leaf first
  std::string key;          // PEM, mode 0600

  static CertificateFiles In(const std::string& directory) {
    return {directory + "/ca.crt", directory + "/tls.crt", directory + "/tls.key"};
  }
};

struct CertificateInfo {
  std::string subject;             // one line
  std::vector<std::string> hosts;  // DNS names and IP addresses that it is good for
  std::vector<std::string> uris;
  absl::Time not_before;
  absl::Time not_after;
};

// The first certificate of `pem`; any bytes may come in. InvalidArgument when there is none.
absl::StatusOr<CertificateInfo> ParseCertificate(absl::string_view pem);
absl::StatusOr<CertificateInfo> ReadCertificate(const std::string& path);

// That all three are there, the key is private and belongs to the certificate, the certificate is
// of the authority and good at `now`. Errors name the file and the fix. Returns what the
// certificate says.
absl::StatusOr<CertificateInfo> CheckCertificateFiles(const CertificateFiles& files,
                                                      absl::Time now);

// Identity of a node's agent, a URI in its certificate: "spiffe://switchyard/agent/{node}".
std::string AgentUri(const std::string& node);
// {node} of such a URI; empty when it is none.
std::optional<std::string> NodeOfAgentUri(absl::string_view uri);

}  // namespace switchyard::security
