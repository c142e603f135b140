// A node that is gone for good is forgotten on request, and only then.
#include <gmock/gmock.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/coordinator/support/coordinator_fixture.h"
#include "tests/coordinator/support/scripted_agent.h"

namespace switchyard::coordinator {
namespace {

class NodeForgetTest : public CoordinatorFixture {
 protected:
  // "OK" or the reason of the refusal.
  std::string Forget(const std::string& name) {
    grpc::ClientContext context;
    v1::DeleteNodeRequest request;
    request.set_name(name);
    v1::DeleteNodeResponse response;
    const grpc::Status status = nodes_->DeleteNode(&context, request, &response);
    if (status.ok()) return "OK";
    google::rpc::Status rich;
    rich.ParseFromString(status.error_details());
    for (const auto& detail : rich.details()) {
      google::rpc::ErrorInfo info;
      if (!detail.UnpackTo(&info)) continue;
      EXPECT_EQ(info.reason().rfind("NODE_", 0) == 0,
                status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
      return info.reason();
    }
    return status.error_message();
  }
  std::vector<v1::Node> Nodes() {
    grpc::ClientContext context;
    v1::ListNodesResponse response;
    EXPECT_TRUE(nodes_->ListNodes(&context, {}, &response).ok());
    return {response.nodes().begin(), response.nodes().end()};
  }
  int Events(const std::string& parent) {
    grpc::ClientContext context;
    v1::ListEventsRequest request;
    request.set_parent(parent);
    v1::ListEventsResponse response;
    EXPECT_TRUE(jobs_->ListEvents(&context, request, &response).ok());
    return response.events_size();
  }
};

TEST_F(NodeForgetTest, ANodeIsForgottenUntilItDialsInAgain) {
  auto agent = std::make_unique<ScriptedAgent>(server_->address(), "a", AgentScript{});
  ASSERT_TRUE(WaitForNodes(1));
  grpc::ClientContext context;
  v1::CordonNodeRequest cordon;
  cordon.set_name("nodes/a");
  v1::Node node;
  ASSERT_TRUE(nodes_->CordonNode(&context, cordon, &node).ok());
  EXPECT_EQ(Forget("nodes/a"), "NODE_CONNECTED");
  agent.reset();
  ASSERT_TRUE(Wait([&] { return Forget("nodes/a") == "OK"; }));
  EXPECT_EQ(Forget("nodes/a"), "NOT_FOUND");
  EXPECT_TRUE(Nodes().empty());
  EXPECT_EQ(Events("nodes/a"), 0);
  server_.reset();
  StartCoordinator();
  EXPECT_TRUE(Nodes().empty()) << "nor is it in the store";

  agent = std::make_unique<ScriptedAgent>(server_->address(), "a", AgentScript{});
  ASSERT_TRUE(WaitForNodes(1));
  EXPECT_FALSE(Nodes()[0].cordoned());
  EXPECT_GT(Events("nodes/a"), 0);
}

TEST_F(NodeForgetTest, ANodeOfTheStoreThatDoesNotComeBackWasNotHeardInThisRun) {
  {
    ScriptedAgent agent(server_->address(), "a", {});
    ASSERT_TRUE(WaitForNodes(1));
    EXPECT_TRUE(Nodes()[0].has_last_heartbeat_time());
    server_.reset();
  }
  StartCoordinator();
  ASSERT_EQ(Nodes().size(), 1u);
  EXPECT_FALSE(Nodes()[0].has_last_heartbeat_time());
  EXPECT_EQ(Forget("nodes/a"), "OK");
  EXPECT_TRUE(Nodes().empty());
}

TEST_F(NodeForgetTest, ANodeIsKeptWhileAnAttemptIsOnIt) {
  auto agent =
      std::make_unique<ScriptedAgent>(server_->address(), "a", AgentScript{.hold_before_step = 2});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_RUNNING));
  agent.reset();
  std::string answer;
  ASSERT_TRUE(Wait([&] { return (answer = Forget("nodes/a")) != "NODE_CONNECTED"; }));
  EXPECT_EQ(answer, "NODE_IN_USE");
}

TEST_F(NodeForgetTest, OnlyNamesOfNodesAreTaken) {
  EXPECT_EQ(Forget("nodes/none"), "NOT_FOUND");
  EXPECT_EQ(Forget("a"), "INVALID_REQUEST");
}

}  // namespace
}  // namespace switchyard::coordinator
