// up and down: a coordinator and an agent on this machine, with nothing to configure.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/rpc/credentials.h"
#include "common/security/init.h"
#include "common/security/private_file.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/daemon.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/fetch.h"
#include "coordinator/cli/install_paths.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr absl::Duration kStopGrace = absl::Seconds(20);
constexpr char kNode[] = "local";
constexpr int kSecureDays = 365;  // of the certificates and the first token of `up --secure`

struct UpArguments {
  std::string state_dir;
  std::string bin_dir;
  std::string metrics = "127.0.0.1:9464";
  std::string agent_metrics = "127.0.0.1:9465";
  std::optional<int> cpu_slots;
  bool secure = false;
  std::vector<std::string> roots;  // with secure: where models, data and outputs may be
};

std::string DefaultStateDirectory() {
  if (const char* state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state == '/') {
    return absl::StrCat(state, "/switchyard");
  }
  const char* home = std::getenv("HOME");
  return absl::StrCat(home != nullptr && *home == '/' ? home : "/tmp", "/.local/state/switchyard");
}

// On a machine without a GPU the slots are its cores.
int DefaultCpuSlots() {
  std::error_code error;
  if (fs::exists("/dev/nvidiactl", error)) return 0;
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 8);
}

absl::StatusOr<UniqueFd> Lock(const std::string& state_dir) {
  security::MakePrivateDirectory(state_dir).IgnoreError();  // the lock's error is the one to tell
  UniqueFd fd(
      open(absl::StrCat(state_dir, "/up.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot write to the state directory ",
                                                   state_dir, ": ", std::strerror(errno),
                                                   "; choose another with --state-dir"));
  }
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("another `switchyard up` or `down` is at work in ", state_dir));
  }
  return fd;
}

// `switchyard up` or `down` for this state directory, as it is to be typed.
std::string CommandFor(const std::string& name, const std::string& state_dir) {
  return absl::StrCat("switchyard ", name,
                      state_dir == DefaultStateDirectory()
                          ? std::string()
                          : absl::StrCat(" --state-dir ", state_dir));
}

std::string RecordFile(const std::string& state_dir) { return absl::StrCat(state_dir, "/up.json"); }

security::SecurityDirectory SecurityOf(const UpArguments& arguments) {
  return {absl::StrCat(arguments.state_dir, "/security")};
}

// How the agent and this program reach a coordinator that listens at `wanted`; with --secure makes
// authority, certificates and the first token, once.
absl::StatusOr<Endpoint> MakeEndpoint(const Endpoint& wanted, const UpArguments& arguments) {
  Endpoint endpoint = wanted;
  const size_t colon = wanted.address.rfind(':');
  const std::string host = wanted.address.substr(0, colon);
  const bool any = host == "0.0.0.0" || host == "[::]";
  if (any) endpoint.address = absl::StrCat("127.0.0.1", wanted.address.substr(colon));
  if (!arguments.secure) {
    endpoint.authority.clear();  // whatever the environment says: this one serves plain text
    if (rpc::IsLoopback(wanted.address) || wanted.plain_text) return endpoint;
    return absl::InvalidArgumentError(absl::StrCat(
        "--coordinator is \"", wanted.address,
        "\", which other machines can reach: add --secure --root DIR for TLS and tokens, or, on a "
        "network where everyone may do everything, --plain-text"));
  }
  if (arguments.roots.empty()) {
    return absl::InvalidArgumentError(
        "--secure needs --root DIR, as often as needed: the directories that models, data and "
        "outputs of jobs are in");
  }
  const security::SecurityDirectory directory = SecurityOf(arguments);
  if (!fs::exists(directory.Authority())) {
    char name[256] = {};
    std::vector<std::string> hosts = {"127.0.0.1", "localhost"};
    if (gethostname(name, sizeof(name) - 1) == 0) hosts.emplace_back(name);
    if (!any && !rpc::IsLoopback(wanted.address)) hosts.push_back(host);
    SWITCHYARD_RETURN_IF_ERROR(
        security::InitSecurityDirectory(directory, hosts, {kNode}, kSecureDays, absl::Now()));
  }
  endpoint.authority = directory.Authority();
  endpoint.token_file = directory.FirstToken();
  endpoint.token.clear();
  return endpoint;
}

absl::Status StartError(const Daemon& daemon) {
  return absl::FailedPreconditionError(
      absl::StrCat("the ", daemon.name, " ended at once; the end of its log ", daemon.log, ":\n  ",
                   absl::StrJoin(LastLines(daemon.log, 10), "\n  ")));
}

// Until the agent's node is READY in the coordinator.
absl::Status WaitUntilReady(const Endpoint& endpoint, const std::vector<Daemon>& daemons) {
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (absl::Now() < deadline) {
    for (const Daemon& daemon : daemons) {
      if (!IsRunning(daemon)) return StartError(daemon);
    }
    // A new channel each time: one that met a closed port waits for seconds before it tries again.
    const auto nodes = FetchNodes(ApiClient(endpoint));
    if (nodes.ok()) {
      for (const v1::Node& node : nodes->nodes()) {
        if (ShortName(node.name()) == kNode && node.state() == v1::NODE_STATE_READY)
          return absl::OkStatus();
      }
    }
    absl::SleepFor(absl::Milliseconds(100));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("coordinator and agent run, but the node did not connect in ",
                   absl::FormatDuration(kStartTimeout), "; see ", daemons.back().log));
}

// A coordinator that answers at `address` already would be taken for the one that is started.
absl::Status RefuseIfAnswered(const Endpoint& endpoint) {
  const ApiClient client(endpoint);
  const auto nodes = client.Call(&v1::NodeService::Stub::ListNodes, client.nodes(),
                                 v1::ListNodesRequest(), absl::Seconds(2));
  if (!nodes.ok()) return absl::OkStatus();  // another program's port: the coordinator says so
  return absl::FailedPreconditionError(
      absl::StrCat("a coordinator answers at ", endpoint.address,
                   " already, and it was not started by `switchyard up` with this state directory; "
                   "use it, or choose another address with --coordinator"));
}

// In the reverse order of their start: the agent first, so that it can still say goodbye.
absl::Status StopAll(const std::vector<Daemon>& daemons) {
  absl::Status result;
  for (auto daemon = daemons.rbegin(); daemon != daemons.rend(); ++daemon) {
    result.Update(StopDaemon(*daemon, kStopGrace));
  }
  return result;
}

void Print(CliContext& context, const std::string& state_dir, const std::vector<Daemon>& daemons) {
  if (!context.options.json) {
    for (const Daemon& daemon : daemons) {
      context.io.out << daemon.name << "  " << daemon.address << "  pid " << daemon.pid << "  log "
                     << daemon.log << "\n";
    }
    context.io.out << "State is kept in " << state_dir
                   << ". Stop both with: " << CommandFor("down", state_dir) << "\n";
    return;
  }
  nlohmann::ordered_json document{{"state_dir", state_dir},
                                  {"daemons", nlohmann::ordered_json::array()}};
  for (const Daemon& daemon : daemons) {
    document["daemons"].push_back({{"name", daemon.name},
                                   {"address", daemon.address},
                                   {"pid", daemon.pid},
                                   {"log", daemon.log}});
  }
  context.io.out << document.dump(2) << "\n";
}

// Starts both and records each as soon as it lives, so that `down` finds it whatever happens next.
absl::Status StartBoth(const std::string& listen, const Endpoint& endpoint,
                       const UpArguments& arguments, std::vector<Daemon>& daemons) {
  const std::string bin = arguments.bin_dir.empty() ? ProgramDirectory() : arguments.bin_dir;
  const std::string& state = arguments.state_dir;
  SWITCHYARD_RETURN_IF_ERROR(security::MakePrivateDirectory(absl::StrCat(state, "/logs")));
  const auto start = [&](const std::string& name, const std::string& address,
                         std::vector<std::string> command) -> absl::Status {
    command.insert(command.begin(), absl::StrCat(bin, "/switchyard-", name));
    SWITCHYARD_ASSIGN_OR_RETURN(
        Daemon daemon, StartDaemon(name, command, absl::StrCat(state, "/logs/", name, ".log")));
    daemon.address = address;
    daemons.push_back(std::move(daemon));
    return WriteDaemons(RecordFile(state), daemons);
  };
  std::vector<std::string> coordinator = {"--listen",    listen,
                                          "--metrics",   arguments.metrics,
                                          "--state-dir", absl::StrCat(state, "/coordinator")};
  // Where a calibration of this machine may be put.
  const std::string rates = absl::StrCat(state, "/rates.json");
  std::error_code error;
  if (fs::exists(rates, error)) coordinator.insert(coordinator.end(), {"--rates", rates});
  std::vector<std::string> agent = {
      "--coordinator", endpoint.address,        "--node",     kNode,
      "--metrics",     arguments.agent_metrics, "--work-dir", absl::StrCat(state, "/agent")};
  const int slots = arguments.cpu_slots.value_or(DefaultCpuSlots());
  if (slots > 0) agent.insert(agent.end(), {"--cpu-slots", absl::StrCat(slots)});
  if (arguments.secure) {
    const security::SecurityDirectory security = SecurityOf(arguments);
    coordinator.insert(coordinator.end(), {"--security-dir", security.path});
    agent.insert(agent.end(), {"--tls-dir", security.Agent(kNode)});
    for (const std::string& root : arguments.roots) {
      for (const char* flag : {"--model-root", "--data-root", "--output-root"}) {
        coordinator.insert(coordinator.end(), {flag, root});
        agent.insert(agent.end(), {flag, root});
      }
    }
  } else if (endpoint.plain_text) {
    coordinator.emplace_back("--plain-text");
    agent.emplace_back("--plain-text");
  }
  SWITCHYARD_RETURN_IF_ERROR(start("coordinator", listen, coordinator));
  SWITCHYARD_RETURN_IF_ERROR(start("agent", kNode, agent));
  return WaitUntilReady(endpoint, daemons);
}

absl::StatusOr<int> Up(CliContext& context, UpArguments arguments) {
  if (arguments.state_dir.empty()) arguments.state_dir = DefaultStateDirectory();
  arguments.state_dir = fs::absolute(arguments.state_dir).lexically_normal().string();
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd lock, Lock(arguments.state_dir));
  SWITCHYARD_ASSIGN_OR_RETURN(std::vector<Daemon> earlier,
                              ReadDaemons(RecordFile(arguments.state_dir)));
  for (const Daemon& daemon : earlier) {
    if (!IsRunning(daemon)) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("already up: the ", daemon.name, " runs as pid ", daemon.pid, " (",
                     daemon.address, "); stop it with `", CommandFor("down", arguments.state_dir),
                     "`, or choose another --state-dir, --coordinator and "
                     "metrics addresses"));
  }
  const std::string listen = context.options.coordinator.address;
  SWITCHYARD_ASSIGN_OR_RETURN(const Endpoint endpoint,
                              MakeEndpoint(context.options.coordinator, arguments));
  SWITCHYARD_RETURN_IF_ERROR(RefuseIfAnswered(endpoint));
  std::vector<Daemon> daemons;
  const absl::Status started = StartBoth(listen, endpoint, arguments, daemons);
  if (!started.ok()) {
    StopAll(daemons).IgnoreError();  // the first error is the one to tell
    fs::remove(RecordFile(arguments.state_dir));
    return started;
  }
  Print(context, arguments.state_dir, daemons);
  if (arguments.secure && !context.options.json) {
    context.io.out << "Speak to it with:\n  export SWITCHYARD_COORDINATOR=" << endpoint.address
                   << " SWITCHYARD_CA=" << endpoint.authority
                   << " SWITCHYARD_TOKEN_FILE=" << endpoint.token_file << "\n";
  }
  return kExitOk;
}

absl::StatusOr<int> Down(CliContext& context, std::string state_dir) {
  if (state_dir.empty()) state_dir = DefaultStateDirectory();
  state_dir = fs::absolute(state_dir).lexically_normal().string();
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd lock, Lock(state_dir));
  SWITCHYARD_ASSIGN_OR_RETURN(const std::vector<Daemon> daemons,
                              ReadDaemons(RecordFile(state_dir)));
  const auto running = std::count_if(daemons.begin(), daemons.end(), IsRunning);
  SWITCHYARD_RETURN_IF_ERROR(StopAll(daemons));
  std::error_code error;
  fs::remove(RecordFile(state_dir), error);
  if (context.options.json) {
    context.io.out << nlohmann::json{{"stopped", running}}.dump() << "\n";
  } else {
    context.io.out << (running > 0 ? absl::StrCat(
                                         "Stopped. Jobs go on from their newest checkpoint after `",
                                         CommandFor("up", state_dir), "`.\n")
                                   : absl::StrCat("Nothing was up in ", state_dir, ".\n"));
  }
  return kExitOk;
}

}  // namespace

void AddLocalCommands(CLI::App& app, CommandBody& chosen) {
  auto arguments = std::make_shared<UpArguments>();
  CLI::App* up = app.add_subcommand("up", "Start a coordinator and an agent on this machine");
  up->add_option("--cpu-slots", arguments->cpu_slots,
                 "CPU slots; default the cores, or none where a GPU is")
      ->check(CLI::Range(0, 1024));
  up->add_option("--state-dir", arguments->state_dir, "Where state and logs are kept");
  up->add_option("--metrics", arguments->metrics, "Coordinator's metrics")->capture_default_str();
  up->add_option("--agent-metrics", arguments->agent_metrics, "Agent's metrics")
      ->capture_default_str();
  up->add_option("--bin-dir", arguments->bin_dir,
                 "Where the daemons are; default beside this program");
  up->add_flag("--secure", arguments->secure,
               "TLS, tokens and an agent's certificate, made in the state directory");
  up->add_option("--root", arguments->roots,
                 "With --secure: directory that models, data and outputs may be in");
  up->callback([&chosen, arguments] {
    chosen = [arguments](CliContext& context) { return Up(context, *arguments); };
  });
  auto state_dir = std::make_shared<std::string>();
  CLI::App* down = app.add_subcommand("down", "Stop what `up` started");
  down->add_option("--state-dir", *state_dir, "As given to up");
  down->callback([&chosen, state_dir] {
    chosen = [state_dir](CliContext& context) { return Down(context, *state_dir); };
  });
}

}  // namespace switchyard::coordinator
