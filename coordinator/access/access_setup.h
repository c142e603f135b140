// What a coordinator needs to know about security, from its flags and its security directory
// (common/security/init.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/rpc/credentials.h"
#include "common/security/allowed_paths.h"
#include "coordinator/access/access_gate.h"

namespace switchyard::coordinator {

struct AccessOptions {
  std::string security_dir;  // empty: plain text, no tokens
  bool plain_text = false;   // asked for beyond loopback; not together with security_dir
  std::vector<std::string> model_roots;
  std::vector<std::string> data_roots;
  std::vector<std::string> output_roots;
  AccessLimits limits;
  // TLS connections are ended gently after so long, so that a client shows its certificate and
  // token anew.
  int max_connection_age_seconds = 3600;
};

struct AccessSetup {
  security::PathPolicy paths;
  std::shared_ptr<grpc::ServerCredentials> credentials;
  std::unique_ptr<security::TokenStore> tokens;           // null without security_dir
  std::unique_ptr<security::RevokedNodes> revoked_nodes;  // null without security_dir
};

// InvalidArgument for flags that contradict each other or that would serve plain text to other
// machines without being asked to, FailedPrecondition for certificates or tokens that cannot be
// used; each with the fix.
absl::StatusOr<AccessSetup> SetUpAccess(const AccessOptions& options, const std::string& listen);

}  // namespace switchyard::coordinator
