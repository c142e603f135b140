// What `switchyard doctor` concludes from what it was told. Pure: asks nobody.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/health_check.h"
#include "common/security/certificates.h"
#include "switchyard/v1/node.pb.h"

namespace switchyard::coordinator {

struct ServerFacts {
  std::string version;
  absl::Duration clock_ahead;  // of this machine's
  absl::Duration uncertainty;  // half of the round trip
};

std::vector<HealthCheck> CheckVersions(const std::string& mine, const ServerFacts& server,
                                       const std::vector<v1::Node>& nodes);
// Of the error with which asking the coordinator ended (ApiClient::Error).
HealthCheck CheckUnanswered(const absl::Status& error);
HealthCheck CheckSkew(const ServerFacts& server);
std::vector<HealthCheck> CheckNodes(const std::vector<v1::Node>& nodes, absl::Time now);
// Of the directory `where`; `certificate` as CheckCertificateFiles returned it.
HealthCheck CheckCertificate(const std::string& where,
                             const absl::StatusOr<security::CertificateInfo>& certificate,
                             absl::Time now);

// One line a check, the fix under it; a last line counts.
std::string HealthText(const std::vector<HealthCheck>& checks, bool color);

}  // namespace switchyard::coordinator
