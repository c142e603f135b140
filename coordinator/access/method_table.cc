#include "coordinator/access/method_table.h"

#include <map>

namespace switchyard::coordinator {

using security::Role;

const std::vector<MethodRule>& MethodTable() {
  constexpr bool kAudited = true;
  constexpr bool kQuiet = false;
  static const auto& table = *new std::vector<MethodRule>{
      {"switchyard.v1.JobService/GetJob", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/ListJobs", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/WatchJobs", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/StreamLogs", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/ListEvents", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/GetExpertLoad", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/QueryMetrics", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/PlanJob", Role::kSubmitter, Scope::kProject, kQuiet},
      {"switchyard.v1.JobService/CreateJob", Role::kSubmitter, Scope::kProject, kAudited},
      {"switchyard.v1.JobService/CancelJob", Role::kSubmitter, Scope::kProject, kAudited},
      {"switchyard.v1.JobService/PauseJob", Role::kSubmitter, Scope::kProject, kAudited},
      {"switchyard.v1.JobService/ResumeJob", Role::kSubmitter, Scope::kProject, kAudited},
      {"switchyard.v1.JobService/RetryJob", Role::kSubmitter, Scope::kProject, kAudited},
      {"switchyard.v1.JobService/DeleteJob", Role::kOperator, Scope::kProject, kAudited},
      {"switchyard.v1.CheckpointService/ListCheckpoints", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.CheckpointService/GetCheckpoint", Role::kViewer, Scope::kProject, kQuiet},
      {"switchyard.v1.CheckpointService/CreateCheckpoint", Role::kSubmitter, Scope::kProject,
       kAudited},
      {"switchyard.v1.CheckpointService/DeleteCheckpoint", Role::kOperator, Scope::kProject,
       kAudited},
      // Jobs of projects that the caller may not see are left out of nodes.
      {"switchyard.v1.NodeService/ListNodes", Role::kViewer, Scope::kAnyProject, kQuiet},
      {"switchyard.v1.NodeService/GetNode", Role::kViewer, Scope::kAnyProject, kQuiet},
      {"switchyard.v1.NodeService/CordonNode", Role::kOperator, Scope::kService, kAudited},
      {"switchyard.v1.NodeService/UncordonNode", Role::kOperator, Scope::kService, kAudited},
      {"switchyard.v1.NodeService/DrainNode", Role::kOperator, Scope::kService, kAudited},
      {"switchyard.v1.NodeService/DeleteNode", Role::kOperator, Scope::kService, kAudited},
      // Each checks every grant of the token against the caller's own.
      {"switchyard.v1.AccessService/CreateToken", Role::kAdmin, Scope::kAnyProject, kAudited},
      {"switchyard.v1.AccessService/ListTokens", Role::kAdmin, Scope::kAnyProject, kQuiet},
      {"switchyard.v1.AccessService/RevokeToken", Role::kAdmin, Scope::kAnyProject, kAudited},
      {"switchyard.v1.AccessService/GetCaller", Role::kViewer, Scope::kAnyProject, kQuiet},
      {"switchyard.agent.v1.AgentService/Connect", Role::kNone, Scope::kAgent, kAudited},
  };
  return table;
}

const MethodRule* FindRule(const std::string& method) {
  static const auto& by_name = *[] {
    auto* rules = new std::map<std::string, const MethodRule*>();
    for (const MethodRule& rule : MethodTable()) (*rules)[rule.method] = &rule;
    return rules;
  }();
  const auto it = by_name.find(method);
  return it == by_name.end() ? nullptr : it->second;
}

}  // namespace switchyard::coordinator
