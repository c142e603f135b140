#include "coordinator/access/access_setup.h"

#include "absl/strings/str_cat.h"
#include "common/security/init.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {

absl::StatusOr<AccessSetup> SetUpAccess(const AccessOptions& options, const std::string& listen) {
  AccessSetup setup;
  SWITCHYARD_ASSIGN_OR_RETURN(
      setup.paths,
      security::PathPolicy::Create(options.model_roots, options.data_roots, options.output_roots));
  if (options.security_dir.empty()) {
    if (!rpc::IsLoopback(listen) && !options.plain_text) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--listen is \"", listen,
          "\": without TLS the coordinator serves on loopback only (127.0.0.1, [::1], localhost). "
          "Run `switchyard-coordinator init --security-dir DIR --host NAME` once and start with "
          "--security-dir DIR; or, on a network where everyone may do everything, add "
          "--plain-text"));
    }
    setup.credentials = grpc::InsecureServerCredentials();
    return setup;
  }
  if (options.plain_text) {
    return absl::InvalidArgumentError(
        "--plain-text and --security-dir exclude each other: tokens are never sent in plain text");
  }
  if (!setup.paths.restricted()) {
    return absl::InvalidArgumentError(
        "--security-dir needs to know which directories jobs may name: give --model-root, "
        "--data-root and --output-root, each as often as needed");
  }
  const security::SecurityDirectory directory{options.security_dir};
  const auto files = security::CertificateFiles::In(directory.path);
  SWITCHYARD_ASSIGN_OR_RETURN(setup.credentials, rpc::TlsServer(files));
  SWITCHYARD_ASSIGN_OR_RETURN(setup.tokens, security::TokenStore::Open(directory.Tokens()));
  setup.revoked_nodes = std::make_unique<security::RevokedNodes>(directory.RevokedNodes());
  return setup;
}

}  // namespace switchyard::coordinator
