// Agents: each may speak for its own node only, and certificates are rotated and revoked while
// everything runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/security/issue.h"
#include "switchyard/agent/v1/agent.grpc.pb.h"
#include "switchyard/v1/job_service.grpc.pb.h"
#include "tests/coordinator/access/real_agent.h"

namespace switchyard::coordinator {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

class AgentAttack : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    coordinator_ = new SecureCoordinator({"--max-connection-age", "2"});
  }
  static void TearDownTestSuite() {
    EXPECT_EQ(coordinator_->program().Stop(SIGTERM), 0);
    delete coordinator_;
  }

  // Says Hello for `node`; OK when the coordinator welcomed it.
  static grpc::Status SayHello(const std::shared_ptr<grpc::Channel>& channel,
                               const std::string& node) {
    const auto stub = agent::v1::AgentService::NewStub(channel);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    const auto stream = stub->Connect(&context);
    agent::v1::ConnectRequest message;
    auto& hello = *message.mutable_hello();
    hello.set_node(node);
    hello.set_incarnation("i");
    hello.set_boot_id("b");
    hello.set_protocol_min(1);
    hello.set_protocol_max(1);
    stream->Write(message);
    agent::v1::ConnectResponse answer;
    const bool welcome = stream->Read(&answer) && answer.has_welcome();
    if (welcome) context.TryCancel();
    const grpc::Status status = stream->Finish();
    return welcome ? grpc::Status::OK : status;
  }
  static std::vector<std::string> AgentFlags(const std::string& node) {
    return FlagsOfAgent(*coordinator_, node);
  }
  static v1::NodeState StateOf(const std::string& node) { return StateOfNode(*coordinator_, node); }
  static int Admitted(const std::string& node) { return TimesAdmitted(*coordinator_, node); }

  static SecureCoordinator* coordinator_;
};
SecureCoordinator* AgentAttack::coordinator_ = nullptr;

TEST_F(AgentAttack, SpeakingForANodeWithoutItsCertificate) {
  const std::string agents = coordinator_->security() + "/agents/";
  // A token, even an administrator's, is no node.
  EXPECT_EQ(SayHello(coordinator_->Channel(coordinator_->AdminToken()), "n1").error_code(),
            StatusCode::UNAUTHENTICATED);
  const grpc::Status foreign = SayHello(coordinator_->AgentChannel(agents + "n2"), "n1");
  EXPECT_EQ(foreign.error_code(), StatusCode::PERMISSION_DENIED);
  EXPECT_THAT(foreign.error_message(), HasSubstr("the certificate is of node \"n2\""));
  // The server's own certificate is of no node.
  EXPECT_NE(SayHello(coordinator_->AgentChannel(coordinator_->security()), "n1").error_code(),
            StatusCode::OK);
  // One of another authority does not even get through the handshake.
  const std::string other = *coordinator_ / "other-authority";
  ASSERT_EQ(security::CreateAuthority(other, 10, absl::Now()), absl::OkStatus());
  ASSERT_EQ(security::IssueAgent(other, "n1", {}, other + "/n1", 10, absl::Now()),
            absl::OkStatus());
  std::filesystem::copy_file(coordinator_->security() + "/ca.crt", other + "/n1/ca.crt",
                             std::filesystem::copy_options::overwrite_existing);
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
          other + "/n1/tls.key", other + "/n1/tls.crt", other + "/n1/ca.crt", 1));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  EXPECT_EQ(SayHello(rpc::MakeChannel(coordinator_->address(),
                                      grpc::experimental::TlsCredentials(options)),
                     "n1")
                .error_code(),
            StatusCode::UNAVAILABLE);
  EXPECT_TRUE(SayHello(coordinator_->AgentChannel(agents + "n1"), "n1").ok());
}

TEST_F(AgentAttack, CallingTheUsersInterfaceWithAnAgentsCertificate) {
  const auto channel = coordinator_->AgentChannel(coordinator_->security() + "/agents/n1");
  grpc::ClientContext context;
  v1::ListJobsRequest request;
  request.set_parent("projects/-");
  v1::ListJobsResponse response;
  EXPECT_EQ(v1::JobService::NewStub(channel)->ListJobs(&context, request, &response).error_code(),
            StatusCode::UNAUTHENTICATED);
}

TEST_F(AgentAttack, AnAgentThatIsSetUpUnsafelyDoesNotStart) {
  const auto refusal = [&](const std::vector<std::string>& flags) {
    const std::string output = *coordinator_ / "refusal";
    std::filesystem::remove(output);
    EXPECT_NE(RunProgram("switchyard-agent", flags, output), 0);
    return coordinator_->Read("refusal");
  };
  std::vector<std::string> flags = AgentFlags("n2");
  flags[3] = "n1";
  EXPECT_THAT(refusal(flags), HasSubstr("is not of node \"n1\""));
  EXPECT_THAT(refusal({"--coordinator", "10.255.255.1:1", "--work-dir", *coordinator_ / "w",
                       "--trainer", agent::ProgramPath("fake_trainer")}),
              HasSubstr("--tls-dir DIR"));
  flags = AgentFlags("n2");
  flags.resize(14);  // no roots
  EXPECT_THAT(refusal(flags), HasSubstr("--model-root"));
}

TEST_F(AgentAttack, AnAgentOfALentNodeShowsTheClustersCertificateAndIsLetInToItsAttemptOnly) {
  std::vector<std::string> flags = AgentFlags("n2");
  flags[3] = "0123456789abcdef01234567-e1-0";
  flags.insert(flags.end(), {"--for-attempt", "0123456789abcdef01234567/1"});
  const int before = Admitted("n2");
  Program lent("switchyard-agent", flags, *coordinator_ / "lent.log");
  EXPECT_TRUE(agent::Eventually([&] {
    return coordinator_->Read("lent.log").find("is over") != std::string::npos;
  })) << coordinator_->Read("lent.log");
  EXPECT_GT(Admitted("n2"), before);
}

TEST_F(AgentAttack, CertificatesAreRotatedAndRevokedWithoutARestart) {
  Program n1("switchyard-agent", AgentFlags("n1"), *coordinator_ / "n1.log");
  ASSERT_TRUE(agent::Eventually([] { return StateOf("n1") == v1::NODE_STATE_READY; }))
      << coordinator_->Read("n1.log");
  // A new server certificate, and a new one of the agent: both processes take them.
  ASSERT_EQ(coordinator_->Command({"issue-server", "--host", "localhost", "--host", "127.0.0.1",
                                   "--host", "rotated.example"}),
            0);
  ASSERT_EQ(coordinator_->Command({"issue-agent", "--node", "n1"}), 0);
  const int before = Admitted("n1");
  EXPECT_TRUE(
      agent::Eventually([&] { return Admitted("n1") >= before + 2; }, std::chrono::seconds(40)))
      << "connections are made anew";
  EXPECT_TRUE(agent::Eventually([] { return StateOf("n1") == v1::NODE_STATE_READY; }));
  // Only the new certificate is good for this name.
  const auto credentials = rpc::ClientCredentials(
      coordinator_->address(),
      {.authority = coordinator_->security() + "/ca.crt", .token = coordinator_->AdminToken()});
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride("rotated.example");
  EXPECT_TRUE(agent::Eventually([&] {
    const auto channel =
        grpc::CreateCustomChannel(coordinator_->address(), *credentials, arguments);
    return channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(1));
  }));
  // Revoked: it is put out at its next connection, and a new certificate lets it in again.
  ASSERT_EQ(coordinator_->Command({"revoke-agent", "--node", "n1"}), 0);
  EXPECT_TRUE(agent::Eventually([] { return StateOf("n1") == v1::NODE_STATE_LOST; },
                                std::chrono::seconds(40)));
  EXPECT_THAT(coordinator_->audit(), HasSubstr("was revoked at"));
  ASSERT_EQ(coordinator_->Command({"issue-agent", "--node", "n1"}), 0);
  EXPECT_TRUE(agent::Eventually([] { return StateOf("n1") == v1::NODE_STATE_READY; },
                                std::chrono::seconds(30)))
      << coordinator_->Read("n1.log");
  EXPECT_EQ(n1.Stop(SIGTERM), 0);
}

}  // namespace
}  // namespace switchyard::coordinator
