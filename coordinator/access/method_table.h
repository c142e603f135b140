// The one table of who may call what. A method that is not in it can be called by nobody.
#pragma once

#include <string>
#include <vector>

#include "common/security/roles.h"

namespace switchyard::coordinator {

// Where the role must be held.
enum class Scope {
  kProject,     // in the project that the request names; "*" when it names all, or a node
  kAnyProject,  // in at least one; the handler looks closer where that is not enough
  kService,     // in all ("*")
  kAgent,       // no role: an agent's certificate
};

struct MethodRule {
  const char* method;  // "switchyard.v1.JobService/CreateJob"
  security::Role role;
  Scope scope;
  bool audited;  // also when it is allowed; a refusal always is
};

const std::vector<MethodRule>& MethodTable();
// Null when there is none.
const MethodRule* FindRule(const std::string& method);

}  // namespace switchyard::coordinator
