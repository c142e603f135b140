// Certificates that change under programs that run, slowly and wrongly: nobody is locked out by it,
// and who got a new one needs no restart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_split.h"
#include "common/security/issue.h"
#include "tests/coordinator/access/real_agent.h"

namespace switchyard::coordinator {
namespace {

// Whether a new connection comes about, to a server that is called `host`.
bool Connects(SecureCoordinator& coordinator, const std::string& host) {
  const auto credentials = rpc::ClientCredentials(
      coordinator.address(), {.authority = coordinator.security() + "/ca.crt"});
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride(host);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(coordinator.address(), *credentials, arguments)
      ->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(5));
}

TEST(CertificateChange, FilesThatDoNotFitTogetherLockNobodyOut) {
  SecureCoordinator coordinator;
  const std::string current = coordinator.security();
  const std::string next = coordinator / "next";
  std::filesystem::copy(current, next);
  ASSERT_EQ(security::IssueServer(next, {"rotated.example"}, 90, absl::Now()), absl::OkStatus());
  const auto bring = [&](const std::string& name) {
    std::filesystem::rename(next + "/" + name, current + "/" + name);
  };
  const auto complaints = [&](const std::string& text) {
    int count = 0;
    for (const absl::string_view line : absl::StrSplit(coordinator.output(), '\n'))
      count += absl::StrContains(line, "certificate.not_taken") && absl::StrContains(line, text);
    return count;
  };
  // Connections go on being made until the log complains, and after that.
  const auto keeps = [&](const std::string& host, const std::string& complaint) {
    EXPECT_TRUE(agent::Eventually([&] {
      EXPECT_TRUE(Connects(coordinator, host));
      return complaints(complaint) > 0;
    })) << complaint;
    EXPECT_TRUE(Connects(coordinator, host));
  };
  EXPECT_TRUE(Connects(coordinator, "localhost"));
  bring("tls.key");
  keeps("localhost", "is not the key of");
  bring("tls.crt");
  EXPECT_TRUE(agent::Eventually([&] { return Connects(coordinator, "rotated.example"); }));
  coordinator.Write("security/tls.crt", "nonsense");
  keeps("rotated.example", "no certificate in PEM form");
  // A second look finds the same and does not say it again.
  absl::SleepFor(absl::Seconds(1));
  EXPECT_TRUE(Connects(coordinator, "rotated.example"));
  EXPECT_EQ(complaints("is not the key of"), 1);
  EXPECT_EQ(complaints("no certificate in PEM form"), 1);
  EXPECT_EQ(coordinator.program().Stop(SIGTERM), 0);
}

TEST(CertificateChange, ANewCertificateLetsARefusedAgentInWhileItsConnectionLasts) {
  SecureCoordinator coordinator({"--max-connection-age", "3600"});
  ASSERT_EQ(coordinator.Command({"revoke-agent", "--node", "n1"}), 0);
  Program n1("switchyard-agent", FlagsOfAgent(coordinator, "n1"), coordinator / "n1.log");
  ASSERT_TRUE(agent::Eventually([&] {
    return absl::StrContains(coordinator.audit(), "was revoked at");
  })) << coordinator.Read("n1.log");
  EXPECT_EQ(TimesAdmitted(coordinator, "n1"), 0);
  ASSERT_EQ(coordinator.Command({"issue-agent", "--node", "n1"}), 0);
  EXPECT_TRUE(
      agent::Eventually([&] { return StateOfNode(coordinator, "n1") == v1::NODE_STATE_READY; },
                        std::chrono::seconds(30)))
      << coordinator.Read("n1.log");
  EXPECT_EQ(n1.Stop(SIGTERM), 0);
  EXPECT_EQ(coordinator.program().Stop(SIGTERM), 0);
}

}  // namespace
}  // namespace switchyard::coordinator
