// What a real agent of a SecureCoordinator is started with, and what the coordinator says of it.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "switchyard/v1/node.grpc.pb.h"
#include "tests/coordinator/access/secure_coordinator.h"

namespace switchyard::coordinator {

inline std::vector<std::string> FlagsOfAgent(const SecureCoordinator& coordinator,
                                             const std::string& node) {
  std::vector<std::string> flags = {"--coordinator", coordinator.address(),
                                    "--node",        node,
                                    "--cpu-slots",   "1",
                                    "--metrics",     "off",
                                    "--work-dir",    coordinator / ("work-" + node),
                                    "--trainer",     agent::ProgramPath("fake_trainer"),
                                    "--tls-dir",     coordinator.security() + "/agents/" + node};
  for (const auto& [flag, name] : SecureCoordinator::Roots())
    flags.insert(flags.end(), {flag, coordinator / name});
  return flags;
}

inline v1::NodeState StateOfNode(SecureCoordinator& coordinator, const std::string& node) {
  grpc::ClientContext context;
  v1::GetNodeRequest request;
  request.set_name("nodes/" + node);
  v1::Node answer;
  (void)v1::NodeService::NewStub(coordinator.Channel(coordinator.AdminToken()))
      ->GetNode(&context, request, &answer);
  return answer.state();
}

// Sessions of the node's agents that were let in.
inline int TimesAdmitted(const SecureCoordinator& coordinator, const std::string& node) {
  int count = 0;
  std::istringstream audit(coordinator.audit());
  for (std::string line; std::getline(audit, line);) {
    count += absl::StrContains(line, "\"agent:" + node + "\"") &&
             absl::StrContains(line, "\"result\":\"OK\"");
  }
  return count;
}

}  // namespace switchyard::coordinator
