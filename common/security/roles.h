// Who may do what where: roles, grants of roles in projects, and the caller that has them.
//
// Plain values; knows neither tokens nor transports.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace switchyard::security {

// Each role may do what the one before it may. Numbers are those of switchyard.v1.Role.
enum class Role { kNone = 0, kViewer = 1, kSubmitter = 2, kOperator = 3, kAdmin = 4 };

inline constexpr char kAllProjects[] = "*";

// A role in one project, or in all of them ("*"), nodes and the service itself included.
struct Grant {
  std::string project;
  Role role = Role::kNone;

  bool operator==(const Grant&) const = default;
};

// An authenticated caller.
struct Caller {
  std::string id;    // stable: a token's id, or "local" where callers are not asked who they are
  std::string name;  // for people
  std::vector<Grant> grants;

  // In `project`; "*" asks for a grant that covers everything.
  Role RoleIn(absl::string_view project) const {
    Role role = Role::kNone;
    for (const Grant& grant : grants) {
      if (grant.project == kAllProjects || grant.project == project)
        role = std::max(role, grant.role);
    }
    return role;
  }
  // The highest in any project.
  Role HighestRole() const {
    Role role = Role::kNone;
    for (const Grant& grant : grants) role = std::max(role, grant.role);
    return role;
  }
};

// "viewer", "submitter", "operator", "admin".
inline const char* RoleName(Role role) {
  constexpr const char* kNames[] = {"none", "viewer", "submitter", "operator", "admin"};
  return kNames[static_cast<int>(role)];
}

inline std::optional<Role> RoleOfName(absl::string_view name) {
  for (const Role role : {Role::kViewer, Role::kSubmitter, Role::kOperator, Role::kAdmin}) {
    if (name == RoleName(role)) return role;
  }
  return std::nullopt;
}

}  // namespace switchyard::security
