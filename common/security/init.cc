#include "common/security/init.h"

#include "common/security/issue.h"
#include "common/security/private_file.h"
#include "common/security/token_store.h"
#include "common/status_macros.h"

namespace switchyard::security {
namespace {

constexpr int kAuthorityDays = 3650;

}  // namespace

absl::Status InitSecurityDirectory(const SecurityDirectory& directory,
                                   const std::vector<std::string>& hosts,
                                   const std::vector<std::string>& nodes, int days,
                                   absl::Time now) {
  SWITCHYARD_RETURN_IF_ERROR(CreateAuthority(directory.path, kAuthorityDays, now));
  SWITCHYARD_RETURN_IF_ERROR(IssueServer(directory.path, hosts, days, now));
  for (const std::string& node : nodes) {
    SWITCHYARD_RETURN_IF_ERROR(
        IssueAgent(directory.path, node, {}, directory.Agent(node), days, now));
  }
  SWITCHYARD_ASSIGN_OR_RETURN(const auto tokens, TokenStore::Open(directory.Tokens()));
  SWITCHYARD_ASSIGN_OR_RETURN(const CreatedToken created,
                              tokens->Create({.name = "administrator",
                                              .grants = {{kAllProjects, Role::kAdmin}},
                                              .expire_time = now + absl::Hours(24) * days,
                                              .creator = "init"},
                                             now));
  return WriteTokenFile(directory.FirstToken(), created.text);
}

}  // namespace switchyard::security
