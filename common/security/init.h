// The first set-up of a security directory, and the names of the files in it.
//
// DIR/ca.crt, tls.crt, tls.key   the server's certificate and whom it trusts
// DIR/ca.key                     only where certificates are issued
// DIR/tokens.json                hashes of bearer tokens
// DIR/revoked_nodes.json         nodes whose certificates are not accepted any more
// DIR/admin.token                the first token's text, until it is put elsewhere
// DIR/agents/NODE/               ca.crt, tls.crt and tls.key, to be brought to the node
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace switchyard::security {

struct SecurityDirectory {
  std::string path;

  std::string Authority() const { return path + "/ca.crt"; }
  std::string Tokens() const { return path + "/tokens.json"; }
  std::string RevokedNodes() const { return path + "/revoked_nodes.json"; }
  std::string FirstToken() const { return path + "/admin.token"; }
  std::string Agent(const std::string& node) const { return path + "/agents/" + node; }
};

// Makes the authority, a certificate of the server for `hosts`, certificates for the agents of
// `nodes`, and a token that is admin of everything; all but the authority good for `days`.
// AlreadyExists when there is an authority.
absl::Status InitSecurityDirectory(const SecurityDirectory& directory,
                                   const std::vector<std::string>& hosts,
                                   const std::vector<std::string>& nodes, int days, absl::Time now);

}  // namespace switchyard::security
