// The real switchyard-coordinator with TLS and tokens, set up by its own `init`, and clients for
// it.
#pragma once

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/rpc/credentials.h"
#include "tests/agent/support/agent_process.h"
#include "tests/agent/support/temporary_directory.h"

namespace switchyard::coordinator {

// A child with its output in a file.
class Program {
 public:
  Program(const std::string& name, std::vector<std::string> arguments, const std::string& output) {
    arguments.insert(arguments.begin(), agent::ProgramPath(name));
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                     0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ), 0) << argv[0];
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Program() { Stop(SIGKILL); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Exit code, or 128 + signal.
  int Wait() {
    int status = 0;
    if (pid_ <= 0 || waitpid(pid_, &status, 0) != pid_) return -1;
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int Stop(int signal) {
    if (pid_ <= 0) return -1;
    kill(pid_, signal);
    return Wait();
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

inline int RunProgram(const std::string& name, const std::vector<std::string>& arguments,
                      const std::string& output) {
  return Program(name, arguments, output).Wait();
}

class SecureCoordinator {
 public:
  // `extra`: more flags of the coordinator. Nodes n1 and n2 have certificates.
  explicit SecureCoordinator(std::vector<std::string> extra = {}) : extra_(std::move(extra)) {
    rpc::AllowOnlyTls13();
    for (const char* name : {"models", "data", "out", "elsewhere"})
      std::filesystem::create_directory(dir_ / name);
    EXPECT_EQ(Command({"init", "--host", "localhost", "--host", "127.0.0.1", "--agent", "n1",
                       "--agent", "n2"}),
              0)
        << output();
    Start();
  }
  ~SecureCoordinator() {
    if (testing::Test::HasFailure()) std::cerr << output();
  }

  void Start() {
    std::filesystem::remove(dir_ / "state/listen-address");
    std::vector<std::string> arguments = {"--listen",       "localhost:0", "--metrics",
                                          "127.0.0.1:0",    "--state-dir", dir_ / "state",
                                          "--security-dir", security()};
    for (const auto& [flag, name] : Roots()) arguments.insert(arguments.end(), {flag, dir_ / name});
    arguments.insert(arguments.end(), extra_.begin(), extra_.end());
    program_ = std::make_unique<Program>("switchyard-coordinator", arguments, dir_ / "log");
    EXPECT_TRUE(agent::Eventually([&] {
      address_ = dir_.Read("state/listen-address");
      return !address_.empty();
    })) << output();
  }
  static std::vector<std::pair<std::string, std::string>> Roots() {
    return {{"--model-root", "models"}, {"--data-root", "data"}, {"--output-root", "out"}};
  }

  // A set-up command on the security directory.
  int Command(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin() + 1, {"--security-dir", security()});
    return RunProgram("switchyard-coordinator", arguments, dir_ / "log");
  }
  // A token's text, made beside the coordinator.
  std::string Token(const std::string& role, const std::string& project, const char* name = "x") {
    const std::string file = dir_ / "token";
    EXPECT_EQ(
        Command({"token", "--role", role, "--project", project, "--name", name, "--out", file}), 0);
    std::string text = dir_.Read("token");
    std::filesystem::remove(file);
    return text;
  }
  std::string AdminToken() { return dir_.Read("security/admin.token"); }

  std::shared_ptr<grpc::Channel> Channel(const std::string& token) {
    return Channel({.authority = security() + "/ca.crt", .token = token}, address_);
  }
  static std::shared_ptr<grpc::Channel> Channel(const rpc::ClientSecurity& security,
                                                const std::string& address) {
    const auto credentials = rpc::ClientCredentials(address, security);
    EXPECT_TRUE(credentials.ok()) << credentials.status();
    return rpc::MakeChannel(address, credentials.value_or(nullptr));
  }
  std::shared_ptr<grpc::Channel> AgentChannel(const std::string& tls_dir) {
    const auto tls = rpc::TlsAgent::Open(security::CertificateFiles::In(tls_dir));
    EXPECT_TRUE(tls.ok()) << tls.status();
    return rpc::MakeChannel(address_, tls.ok() ? (*tls)->Current() : nullptr);
  }

  std::string operator/(const std::string& name) const { return dir_ / name; }
  std::string Write(const std::string& name, const std::string& text) const {
    return dir_.Write(name, text);
  }
  std::string Read(const std::string& name) const { return dir_.Read(name); }
  std::string security() const { return dir_ / "security"; }
  std::string audit() const { return dir_.Read("state/audit.log"); }
  std::string output() const { return dir_.Read("log"); }
  const std::string& address() const { return address_; }
  Program& program() { return *program_; }

 private:
  agent::TemporaryDirectory dir_;
  std::vector<std::string> extra_;
  std::unique_ptr<Program> program_;
  std::string address_;
};

}  // namespace switchyard::coordinator
