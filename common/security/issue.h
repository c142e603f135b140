// A certificate authority of one's own: made once, then issues certificates of servers and agents.
//
// Keys are ECDSA P-256. Files are replaced whole, keys first, so that a program that watches them
// (every program here does) takes the new pair.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace switchyard::security {

// Certificates are good from so long before they are issued, for clocks that are late.
inline constexpr absl::Duration kBackdate = absl::Hours(1);

// Writes DIRECTORY/ca.crt and ca.key (0600). AlreadyExists when one is there: agents that trust it
// would be locked out.
absl::Status CreateAuthority(const std::string& directory, int days, absl::Time now);
// Writes DIRECTORY/tls.crt and tls.key for a server that is reached as `hosts`, DNS names or IP
// addresses. InvalidArgument when there is none or one is neither.
absl::Status IssueServer(const std::string& directory, const std::vector<std::string>& hosts,
                         int days, absl::Time now);
// Writes ca.crt, tls.crt and tls.key into `out`, created when missing, for the agent of `node`; its
// /metrics is reached as `node` and as `hosts`.
absl::Status IssueAgent(const std::string& directory, const std::string& node,
                        const std::vector<std::string>& hosts, const std::string& out, int days,
                        absl::Time now);

// The same for a client that is no agent and no server, such as a Prometheus that reads agents'
// metrics: it is let in by its certificate and is nobody else.
absl::Status IssueClient(const std::string& directory, const std::string& name,
                         const std::string& out, int days, absl::Time now);

}  // namespace switchyard::security
