// `switchyard up` as it is meant to be used: one command, with TLS and tokens when they are asked
// for, and never plain text for other machines by accident.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/security/token.h"
#include "common/unique_fd.h"
#include "tests/coordinator/access/secure_coordinator.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

int FreePort() {
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size);
  getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

class UpSecure : public testing::Test {
 protected:
  // The agent looks for its trainer beside itself, and for data preparation as packages install it.
  void SetUp() override {
    std::filesystem::create_directories(dir_ / "lib/switchyard/tools");
    std::ofstream(dir_ / "lib/switchyard/tools/prepare_data.py").close();
    std::filesystem::create_directory(dir_ / "bin");
    for (const auto& [from, to] : {std::pair{"switchyard-coordinator", "switchyard-coordinator"},
                                   {"switchyard-agent", "switchyard-agent"},
                                   {"fake_trainer", "switchyard-trainer"}}) {
      std::filesystem::copy_file(agent::ProgramPath(from), dir_ / "bin/" + to);
    }
  }
  void TearDown() override { Switchyard({"down", "--state-dir", dir_ / "state"}); }

  int Switchyard(const std::vector<std::string>& arguments) {
    std::filesystem::remove(dir_ / "output");
    return RunProgram("switchyard", arguments, dir_ / "output");
  }
  int Up(const std::string& address, std::vector<std::string> extra) {
    std::vector<std::string> arguments = {
        "--coordinator", address,           "up",          "--state-dir", dir_ / "state",
        "--bin-dir",     dir_ / "bin",      "--cpu-slots", "1",           "--metrics",
        "127.0.0.1:0",   "--agent-metrics", agent_metrics_};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    return Switchyard(arguments);
  }
  std::string output() const { return dir_.Read("output"); }

  agent::TemporaryDirectory dir_;
  std::string agent_metrics_ = "off";
};

TEST_F(UpSecure, OneCommandGivesTlsTokensAndAnAgentWithACertificate) {
  const std::string address = absl::StrCat("127.0.0.1:", FreePort());
  ASSERT_EQ(Up(address, {"--secure", "--root", dir_.path()}), 0) << output();
  EXPECT_THAT(output(), HasSubstr("export SWITCHYARD_COORDINATOR="));
  const std::string security = dir_ / "state/security";
  EXPECT_EQ(Switchyard({"--coordinator", address, "--ca", security + "/ca.crt", "--token-file",
                        security + "/admin.token", "nodes"}),
            0);
  EXPECT_THAT(output(), HasSubstr("READY"));
  EXPECT_EQ(Switchyard({"--coordinator", address, "--ca", security + "/ca.crt", "nodes"}), 2);
  EXPECT_THAT(output(), HasSubstr("no token was sent"));
  EXPECT_NE(Switchyard({"--coordinator", address, "--retry-for", "0", "nodes"}), 0);
  EXPECT_THAT(output(), HasSubstr("give --ca FILE"));
  // Again, with the authority and the tokens that are there.
  ASSERT_EQ(Switchyard({"down", "--state-dir", dir_ / "state"}), 0);
  const std::string authority = dir_.Read("state/security/ca.crt");
  ASSERT_EQ(Up(address, {"--secure", "--root", dir_.path()}), 0) << output();
  EXPECT_EQ(dir_.Read("state/security/ca.crt"), authority);
}

// What is copied into a header as it is must be a token and no more; editors and shells add a
// newline, and such files are read too.
TEST_F(UpSecure, ATokenFileHoldsTheTokenAlone) {
  const std::string address = absl::StrCat("127.0.0.1:", FreePort());
  ASSERT_EQ(Up(address, {"--secure", "--root", dir_.path()}), 0) << output();
  const std::string security = dir_ / "state/security";
  const auto with_token = [&](const std::string& file, std::vector<std::string> command) {
    command.insert(command.begin(),
                   {"--coordinator", address, "--ca", security + "/ca.crt", "--token-file", file});
    return Switchyard(command);
  };
  const std::string first = security + "/admin.token";
  EXPECT_EQ(with_token(first, {"token", "create", "--name", "p", "--role", "viewer@*", "--out",
                               dir_ / "of-cli"}),
            0)
      << output();
  EXPECT_EQ(RunProgram("switchyard-coordinator",
                       {"token", "--security-dir", security, "--out", dir_ / "of-coordinator"},
                       dir_ / "output"),
            0)
      << output();
  for (const char* file : {"state/security/admin.token", "of-cli", "of-coordinator"})
    EXPECT_TRUE(security::ParseToken(dir_.Read(file))) << file << ": " << dir_.Read(file);
  EXPECT_EQ(with_token(dir_.Write("edited", dir_.Read("of-cli") + "\n"), {"whoami"}), 0)
      << output();
}

TEST_F(UpSecure, WhatTheDaemonsKeepIsNobodyElsesToRead) {
  const mode_t before = umask(0022);  // what people have, whatever this test was started with
  const int up = Up(absl::StrCat("127.0.0.1:", FreePort()), {"--secure", "--root", dir_.path()});
  umask(before);
  ASSERT_EQ(up, 0) << output();
  // The inner ones too: one directory may have been there before.
  for (const char* name : {"state", "state/coordinator", "state/agent", "state/agent/attempts",
                           "state/logs", "state/security"}) {
    EXPECT_EQ(std::filesystem::status(dir_ / name).permissions(), std::filesystem::perms::owner_all)
        << name;
  }
}

TEST_F(UpSecure, ADirectoryThatIsOpenToOthersIsLeftAndSaid) {
  for (const char* name : {"state", "state/coordinator", "state/agent"}) {
    std::filesystem::create_directory(dir_ / name);
    std::filesystem::permissions(dir_ / name, std::filesystem::perms(0755));
  }
  ASSERT_EQ(Up(absl::StrCat("127.0.0.1:", FreePort()), {}), 0) << output();
  EXPECT_EQ(std::filesystem::status(dir_ / "state/agent").permissions(),
            std::filesystem::perms(0755));
  EXPECT_THAT(dir_.Read("state/logs/coordinator.log"), HasSubstr("state_dir.open_to_others"));
  EXPECT_THAT(dir_.Read("state/logs/agent.log"), HasSubstr("work_dir.open_to_others"));
}

TEST_F(UpSecure, WhoCannotComeInIsToldWhatToLookAt) {
  agent_metrics_ = absl::StrCat("127.0.0.1:", FreePort());
  const std::string address = absl::StrCat("127.0.0.1:", FreePort());
  ASSERT_EQ(Up(address, {"--secure", "--root", dir_.path()}), 0) << output();
  const auto doctor = [&](const std::string& security) {
    Switchyard({"--coordinator", address, "--ca", security + "/ca.crt", "--token-file",
                dir_ / "state/security/admin.token", "doctor", "--skip-machine", "--http",
                agent_metrics_, "--http", dir_.Read("state/coordinator/metrics-address")});
    return output();
  };
  EXPECT_THAT(doctor(dir_ / "state/security"),
              AllOf(HasSubstr(agent_metrics_ + " serves plain HTTP and is healthy"),
                    HasSubstr(" serves HTTPS and is healthy"), HasSubstr("All is well")));
  ASSERT_EQ(RunProgram("switchyard-coordinator",
                       {"init", "--security-dir", dir_ / "other", "--host", "127.0.0.1"},
                       dir_ / "output"),
            0);
  EXPECT_THAT(doctor(dir_ / "other"),
              AllOf(HasSubstr("is --ca the authority of its certificate"),
                    HasSubstr("its certificate is not for this name and of --ca")));

  const Program agent(
      "switchyard-agent",
      {"--coordinator", address, "--node", "plain", "--work-dir", dir_ / "plain", "--trainer",
       dir_ / "bin/switchyard-trainer", "--cpu-slots", "1", "--metrics", "off"},
      dir_ / "agent.log");
  EXPECT_TRUE(agent::Eventually([&] {
    return dir_.Read("agent.log").find("wants --tls-dir DIR") != std::string::npos;
  })) << dir_.Read("agent.log");
}

TEST_F(UpSecure, PlainTextForOtherMachinesIsRefusedWithTheWayOut) {
  EXPECT_NE(Up("0.0.0.0:1", {}), 0);
  EXPECT_THAT(output(), HasSubstr("--secure --root DIR"));
  EXPECT_NE(Up("127.0.0.1:1", {"--secure"}), 0);
  EXPECT_THAT(output(), HasSubstr("--secure needs --root DIR"));
  EXPECT_FALSE(std::filesystem::exists(dir_ / "state/coordinator"));
}

}  // namespace
}  // namespace switchyard::coordinator
