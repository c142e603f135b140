// doctor: looks at the service and at this machine, and says what to do.
#include <sys/wait.h>
#include <unistd.h>

#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/http/http_client.h"
#include "common/status_macros.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/doctor_checks.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/install_paths.h"

namespace switchyard::coordinator {
namespace {

struct DoctorOptions {
  std::vector<std::string> http;  // addresses of pages and metrics
  std::vector<std::string> certificates;
  std::string work_dir;
  std::string trainer;
  int slots = 0;
  bool skip_machine = false;
};

// Asks for the nodes, and how the coordinator's clock and version are.
absl::Status AskCoordinator(const ApiClient& client, ServerFacts* facts,
                            std::vector<v1::Node>* nodes) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + absl::Seconds(10)));
  v1::ListNodesRequest request;
  request.set_page_size(1000);
  v1::ListNodesResponse response;
  const absl::Time begin = absl::Now();
  const grpc::Status status = client.nodes().ListNodes(&context, request, &response);
  const absl::Time end = absl::Now();
  const auto text = [&](const char* key) {
    const auto found = context.GetServerInitialMetadata().find(key);
    return found == context.GetServerInitialMetadata().end()
               ? std::string()
               : std::string(found->second.data(), found->second.size());
  };
  facts->version = text("switchyard-version");
  int64_t milliseconds = 0;
  facts->uncertainty = (end - begin) / 2;
  if (absl::SimpleAtoi(text("switchyard-time-ms"), &milliseconds))
    facts->clock_ahead = absl::FromUnixMillis(milliseconds) - (begin + facts->uncertainty);
  nodes->assign(response.nodes().begin(), response.nodes().end());
  return status.ok() ? absl::OkStatus() : client.Error(status);
}

void CheckService(const CliContext& context, std::vector<HealthCheck>& checks) {
  const ApiClient client(context.options.coordinator);
  ServerFacts facts;
  std::vector<v1::Node> nodes;
  const absl::Status asked = AskCoordinator(client, &facts, &nodes);
  if (!asked.ok()) {
    checks.push_back(CheckUnanswered(asked));
    return;
  }
  checks.push_back({"coordinator", Health::kOk,
                    absl::StrCat("answers at ", context.options.coordinator.address, " in ",
                                 absl::FormatDuration(
                                     absl::Trunc(2 * facts.uncertainty, absl::Microseconds(100)))),
                    ""});
  for (auto&& found : {CheckVersions(SWITCHYARD_VERSION, facts, nodes),
                       {CheckSkew(facts)},
                       CheckNodes(nodes, absl::Now())}) {
    checks.insert(checks.end(), found.begin(), found.end());
  }
}

HealthCheck CheckHttp(const std::string& address, const std::string& authority) {
  auto answer = http::Get(address, "/healthz", authority);
  const char* how = authority.empty() ? "HTTP" : "HTTPS";
  if (!answer.ok() && !authority.empty()) {
    // Agents speak plain text on loopback, whatever the coordinator does.
    if (auto plain = http::Get(address, "/healthz"); plain.ok()) {
      answer = std::move(plain);
      how = "plain HTTP";
    }
  }
  if (!answer.ok()) {
    return {"http", Health::kWarning, std::string(answer.status().message()),
            absl::StrCat(authority.empty()
                             ? "nothing serves pages and metrics there, or it speaks TLS (give "
                               "--ca FILE)"
                             : "nothing serves pages and metrics there, its certificate is not for "
                               "this name and of --ca, or it is an agent's, which beyond loopback "
                               "answers certificates of issue-client only",
                         ": see --metrics of the program; name the address with --http "
                         "HOST:PORT")};
  }
  const std::string line = answer->body.substr(0, answer->body.find('\n'));
  if (answer->status == 200)
    return {"http", Health::kOk, absl::StrCat(address, " serves ", how, " and is healthy"), ""};
  return {"http", Health::kFailed,
          absl::StrCat(address, "/healthz says ", answer->status, ": ", line),
          "its program does not get on; its log says with what"};
}

// What `switchyard-agent doctor` beside this program says of this machine.
std::vector<HealthCheck> CheckMachine(const DoctorOptions& options) {
  const std::string agent = ProgramDirectory() + "/switchyard-agent";
  std::vector<std::string> arguments = {agent, "doctor"};
  if (!options.trainer.empty()) arguments.insert(arguments.end(), {"--trainer", options.trainer});
  if (!options.work_dir.empty())
    arguments.insert(arguments.end(), {"--work-dir", options.work_dir});
  if (options.slots > 0)
    arguments.insert(arguments.end(), {"--slots", absl::StrCat(options.slots)});
  if (access(agent.c_str(), X_OK) != 0) {
    return {{"machine", Health::kSkipped,
             "switchyard-agent is not installed here: this machine's GPUs, disk and limits were "
             "not looked at",
             ""}};
  }
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  int ends[2];
  std::string output;
  if (pipe(ends) == 0) {
    const pid_t pid = fork();
    if (pid == 0) {
      dup2(ends[1], STDOUT_FILENO);
      execv(agent.c_str(), argv.data());
      _exit(127);
    }
    close(ends[1]);
    char buffer[4096];
    for (ssize_t n = 0; (n = read(ends[0], buffer, sizeof buffer)) > 0;)
      output.append(buffer, static_cast<size_t>(n));
    close(ends[0]);
    int status = 0;
    if (pid > 0) waitpid(pid, &status, 0);
  }
  auto checks = ParseHealthJson(output);
  if (checks.ok()) return *std::move(checks);
  return {{"machine", Health::kFailed, absl::StrCat(agent, " doctor says nothing that can be read"),
           "run it by hand; is it of this version?"}};
}

absl::StatusOr<int> Doctor(CliContext& context, const DoctorOptions& options) {
  // First, while this process has no threads of gRPC.
  const std::vector<HealthCheck> machine =
      options.skip_machine ? std::vector<HealthCheck>() : CheckMachine(options);
  std::vector<HealthCheck> checks;
  CheckService(context, checks);
  for (const std::string& address : options.http)
    checks.push_back(CheckHttp(address, context.options.coordinator.authority));
  const absl::Time now = absl::Now();
  for (const std::string& directory : options.certificates) {
    checks.push_back(CheckCertificate(
        directory, security::CheckCertificateFiles(security::CertificateFiles::In(directory), now),
        now));
  }
  checks.insert(checks.end(), machine.begin(), machine.end());
  context.io.out << (context.options.json ? HealthJson(checks)
                                          : HealthText(checks, context.io.color));
  for (const HealthCheck& check : checks) {
    if (check.health == Health::kFailed) return kExitDoctorFailed;
  }
  return kExitOk;
}

}  // namespace

void AddDoctorCommand(CLI::App& app, CommandBody& chosen) {
  auto options = std::make_shared<DoctorOptions>();
  options->http = {"127.0.0.1:9464"};
  CLI::App* doctor = app.add_subcommand(
      "doctor", "Look at versions, ports, certificates, disk, clocks, GPUs; say what to do");
  doctor
      ->add_option("--http", options->http,
                   "HOST:PORT of pages and metrics of the coordinator or an agent; repeat it")
      ->capture_default_str();
  doctor->add_option("--certificates", options->certificates,
                     "Directory with ca.crt, tls.crt and tls.key; repeat it");
  doctor->add_option("--work-dir", options->work_dir, "The agent's directory on this machine");
  doctor->add_option("--trainer", options->trainer, "Path of switchyard-trainer on this machine");
  doctor->add_option("--slots", options->slots, "Ranks that may run on this machine at once");
  doctor->add_flag("--skip-machine", options->skip_machine, "Look at the service only");
  doctor->callback([&chosen, options] {
    chosen = [options](CliContext& context) { return Doctor(context, *options); };
  });
}

}  // namespace switchyard::coordinator
