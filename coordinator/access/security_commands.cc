#include "coordinator/access/security_commands.h"

#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/security/certificates.h"
#include "common/security/init.h"
#include "common/security/issue.h"
#include "common/security/private_file.h"
#include "common/security/revoked_nodes.h"
#include "common/security/token_store.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

struct Arguments {
  std::string security_dir;
  std::vector<std::string> hosts;
  std::vector<std::string> agents;
  std::string node;
  std::string out;
  std::string name = "administrator";
  std::string role = "admin";
  std::string project = security::kAllProjects;
  int days = 90;
};

void Say(const std::string& line) { std::printf("%s\n", line.c_str()); }

void SayAgent(const std::string& node, const std::string& directory) {
  Say(absl::StrCat("agent        ", directory, "    switchyard-agent --node ", node, " --tls-dir ",
                   directory, " ..."));
}

absl::Status IssueOneAgent(const Arguments& arguments) {
  const std::string out =
      arguments.out.empty()
          ? security::SecurityDirectory{arguments.security_dir}.Agent(arguments.node)
          : arguments.out;
  SWITCHYARD_RETURN_IF_ERROR(security::IssueAgent(
      arguments.security_dir, arguments.node, arguments.hosts, out, arguments.days, absl::Now()));
  SayAgent(arguments.node, out);
  return absl::OkStatus();
}

absl::Status IssueOneClient(const Arguments& arguments) {
  const std::string out = arguments.out.empty()
                              ? absl::StrCat(arguments.security_dir, "/clients/", arguments.name)
                              : arguments.out;
  SWITCHYARD_RETURN_IF_ERROR(security::IssueClient(arguments.security_dir, arguments.name, out,
                                                   arguments.days, absl::Now()));
  Say(absl::StrCat("client       ", out));
  return absl::OkStatus();
}

absl::Status NewToken(const Arguments& arguments) {
  const auto role = security::RoleOfName(arguments.role);
  if (!role) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--role is \"", arguments.role, "\"; give viewer, submitter, operator or admin"));
  }
  if (arguments.days < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("--days is ", arguments.days, "; give at least 1"));
  }
  SWITCHYARD_ASSIGN_OR_RETURN(
      const auto store,
      security::TokenStore::Open(security::SecurityDirectory{arguments.security_dir}.Tokens()));
  const absl::Time now = absl::Now();
  SWITCHYARD_ASSIGN_OR_RETURN(const security::CreatedToken created,
                              store->Create({.name = arguments.name,
                                             .grants = {{arguments.project, *role}},
                                             .expire_time = now + absl::Hours(24) * arguments.days,
                                             .creator = "init"},
                                            now));
  if (arguments.out.empty()) {
    Say(created.text);
    return absl::OkStatus();
  }
  return security::WriteTokenFile(arguments.out, created.text);
}

absl::Status Init(const Arguments& arguments) {
  const security::SecurityDirectory dir{arguments.security_dir};
  SWITCHYARD_RETURN_IF_ERROR(security::InitSecurityDirectory(dir, arguments.hosts, arguments.agents,
                                                             arguments.days, absl::Now()));
  Say(absl::StrCat("authority    ", dir.Authority(),
                   "    keep ca.key only where certificates are issued"));
  Say(absl::StrCat("server       ", dir.path, "    switchyard-coordinator --security-dir ",
                   dir.path, " ..."));
  for (const std::string& node : arguments.agents) SayAgent(node, dir.Agent(node));
  Say(absl::StrCat("first token  ", dir.FirstToken(), "    switchyard --ca ", dir.Authority(),
                   " --token-file ", dir.FirstToken(), " token create ..."));
  return absl::OkStatus();
}

absl::Status RevokeAgent(const Arguments& arguments) {
  SWITCHYARD_RETURN_IF_ERROR(security::RevokedNodes::Revoke(
      security::SecurityDirectory{arguments.security_dir}.RevokedNodes(), arguments.node,
      absl::Now()));
  Say(absl::StrCat("certificates of ", arguments.node,
                   " that exist are refused from its next connection on"));
  return absl::OkStatus();
}

absl::Status IssueServerAgain(const Arguments& arguments) {
  std::vector<std::string> hosts = arguments.hosts;
  if (hosts.empty()) {  // those that it has
    SWITCHYARD_ASSIGN_OR_RETURN(
        const security::CertificateInfo now,
        security::ReadCertificate(
            security::CertificateFiles::In(arguments.security_dir).certificate));
    hosts = now.hosts;
  }
  SWITCHYARD_RETURN_IF_ERROR(
      security::IssueServer(arguments.security_dir, hosts, arguments.days, absl::Now()));
  Say(absl::StrCat("server    ", arguments.security_dir,
                   "/tls.crt    a running coordinator takes it by itself"));
  return absl::OkStatus();
}

}  // namespace

void AddSecurityCommands(CLI::App& app, std::function<absl::Status()>& chosen) {
  const auto add = [&](const char* name, const char* help,
                       absl::Status (*run)(const Arguments&)) -> std::pair<CLI::App*, Arguments*> {
    auto arguments = std::make_shared<Arguments>();
    CLI::App* command = app.add_subcommand(name, help);
    command->add_option("--security-dir", arguments->security_dir, "Directory of keys and tokens")
        ->required();
    command->callback(
        [&chosen, arguments, run] { chosen = [arguments, run] { return run(*arguments); }; });
    return {command, arguments.get()};  // the callback keeps it
  };
  const auto add_days = [](CLI::App* command, Arguments* arguments) {
    command->add_option("--days", arguments->days, "Days until it ends")->capture_default_str();
  };
  const char* host_help = "DNS name or IP address under which it is reached; repeat as needed";

  auto [init, init_arguments] =
      add("init", "Make an authority, the server's certificate and the first token", Init);
  init->add_option("--host", init_arguments->hosts, host_help)->required();
  init->add_option("--agent", init_arguments->agents, "Node whose agent gets a certificate too");
  add_days(init, init_arguments);

  auto [server, server_arguments] =
      add("issue-server", "A new certificate for the server", IssueServerAgain);
  server->add_option("--host", server_arguments->hosts, host_help);
  add_days(server, server_arguments);

  auto [agent, agent_arguments] =
      add("issue-agent", "A certificate for a node's agent", IssueOneAgent);
  agent->add_option("--node", agent_arguments->node, "Name of the node")->required();
  agent->add_option("--host", agent_arguments->hosts, host_help);
  agent->add_option("--out", agent_arguments->out, "Where to; default DIR/agents/NODE");
  add_days(agent, agent_arguments);

  auto [client, client_arguments] =
      add("issue-client", "A certificate for a reader of agents' metrics, such as Prometheus",
          IssueOneClient);
  client->add_option("--name", client_arguments->name, "Whose it is")->required();
  client->add_option("--out", client_arguments->out, "Where to; default DIR/clients/NAME");
  add_days(client, client_arguments);

  auto [revoke, revoke_arguments] =
      add("revoke-agent", "Refuse the certificates that a node has", RevokeAgent);
  revoke->add_option("--node", revoke_arguments->node, "Name of the node")->required();

  auto [token, token_arguments] =
      add("token", "A token, made without asking a coordinator; printed once", NewToken);
  token->add_option("--name", token_arguments->name, "Who or what it is for")
      ->capture_default_str();
  token->add_option("--role", token_arguments->role, "viewer, submitter, operator or admin")
      ->capture_default_str();
  token->add_option("--project", token_arguments->project, "Project, or * for all")
      ->capture_default_str();
  token->add_option("--out", token_arguments->out, "File to write it to, mode 0600");
  add_days(token, token_arguments);
}

}  // namespace switchyard::coordinator
