// up and down: a coordinator and an agent on this machine, with nothing to configure.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/file_lock.h"
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
#include "coordinator/cli/up_record.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kStartTimeout = absl::Seconds(30);
constexpr absl::Duration kStopGrace = absl::Seconds(20);
constexpr char kNode[] = "local";
constexpr char kCoordinator[] = "coordinator";
constexpr size_t kDaemons = 2;    // coordinator and agent
constexpr int kSecureDays = 365;  // of the certificates and the first token of `up --secure`

struct UpArguments {
  std::string state_dir;
  UpOptions options;
};

// One of the two daemons of `up`, whether it runs or not.
struct Wanted {
  std::string name;
  std::string address;
  std::vector<std::string> command;
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
  absl::StatusOr<UniqueFd> lock = TryLockFile(absl::StrCat(state_dir, "/up.lock"), 0644);
  if (absl::IsFailedPrecondition(lock.status())) {
    return absl::FailedPreconditionError(
        absl::StrCat("another `switchyard up` or `down` is at work in ", state_dir));
  }
  if (!lock.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the state directory ", state_dir,
                                                   " cannot be used: ", lock.status().message(),
                                                   "; choose another with --state-dir"));
  }
  return lock;
}

// `switchyard up` or `down` for this state directory, as it is to be typed.
std::string CommandFor(const std::string& name, const std::string& state_dir) {
  return absl::StrCat("switchyard ", name,
                      state_dir == DefaultStateDirectory()
                          ? std::string()
                          : absl::StrCat(" --state-dir ", state_dir));
}

std::string RecordFile(const std::string& state_dir) { return absl::StrCat(state_dir, "/up.json"); }

security::SecurityDirectory SecurityOf(const std::string& state_dir) {
  return {absl::StrCat(state_dir, "/security")};
}

// How the agent and this program reach the coordinator; with --secure makes authority, certificates
// and the first token, once.
absl::StatusOr<Endpoint> MakeEndpoint(const UpOptions& options, const std::string& state_dir) {
  Endpoint endpoint;
  endpoint.address = options.listen;
  endpoint.plain_text = options.plain_text;
  const size_t colon = options.listen.rfind(':');
  const std::string host = options.listen.substr(0, colon);
  const bool any = host == "0.0.0.0" || host == "[::]";
  if (any) endpoint.address = absl::StrCat("127.0.0.1", options.listen.substr(colon));
  if (!options.secure) {
    if (rpc::IsLoopback(options.listen) || options.plain_text) return endpoint;
    return absl::InvalidArgumentError(absl::StrCat(
        "--coordinator is \"", options.listen,
        "\", which other machines can reach: add --secure --root DIR for TLS and tokens, or, on a "
        "network where everyone may do everything, --plain-text"));
  }
  if (options.roots.empty()) {
    return absl::InvalidArgumentError(
        "--secure needs --root DIR, as often as needed: the directories that models, data and "
        "outputs of jobs are in");
  }
  const security::SecurityDirectory directory = SecurityOf(state_dir);
  if (!fs::exists(directory.Authority())) {
    char name[256] = {};
    std::vector<std::string> hosts = {"127.0.0.1", "localhost"};
    if (gethostname(name, sizeof(name) - 1) == 0) hosts.emplace_back(name);
    if (!any && !rpc::IsLoopback(options.listen)) hosts.push_back(host);
    SWITCHYARD_RETURN_IF_ERROR(
        security::InitSecurityDirectory(directory, hosts, {kNode}, kSecureDays, absl::Now()));
  }
  endpoint.authority = directory.Authority();
  endpoint.token_file = directory.FirstToken();
  return endpoint;
}

absl::Status StartError(const Daemon& daemon) {
  return absl::FailedPreconditionError(
      absl::StrCat("the ", daemon.name, " ended at once; the end of its log ", daemon.log, ":\n  ",
                   absl::StrJoin(LastLines(daemon.log, 10), "\n  ")));
}

// Until the agent's node is READY in the coordinator, which has heard of it since `since`: of an
// agent that was killed a moment ago it may still think well.
absl::Status WaitUntilReady(const Endpoint& endpoint, const std::vector<Daemon>& daemons,
                            absl::Time since) {
  const absl::Time deadline = absl::Now() + kStartTimeout;
  while (absl::Now() < deadline) {
    for (const Daemon& daemon : daemons) {
      if (!IsRunning(daemon)) return StartError(daemon);
    }
    // A new channel each time: one that met a closed port waits for seconds before it tries again.
    const auto nodes = FetchNodes(ApiClient(endpoint));
    if (nodes.ok()) {
      for (const v1::Node& node : nodes->nodes()) {
        const auto& heard = node.last_heartbeat_time();
        if (ShortName(node.name()) == kNode && node.state() == v1::NODE_STATE_READY &&
            absl::FromUnixSeconds(heard.seconds()) + absl::Nanoseconds(heard.nanos()) >= since) {
          return absl::OkStatus();
        }
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

// In the order of their start.
std::vector<Wanted> WantedDaemons(const UpOptions& options, const Endpoint& endpoint,
                                  const std::string& state) {
  const std::string bin = options.bin_dir.empty() ? ProgramDirectory() : options.bin_dir;
  std::vector<std::string> coordinator = {bin + "/switchyard-coordinator",
                                          "--listen",
                                          options.listen,
                                          "--metrics",
                                          options.metrics,
                                          "--state-dir",
                                          state + "/coordinator"};
  // Where a calibration of this machine may be put.
  const std::string rates = absl::StrCat(state, "/rates.json");
  std::error_code error;
  if (fs::exists(rates, error)) coordinator.insert(coordinator.end(), {"--rates", rates});
  std::vector<std::string> agent = {
      bin + "/switchyard-agent", "--coordinator", endpoint.address, "--node", kNode, "--metrics",
      options.agent_metrics,     "--work-dir",    state + "/agent"};
  if (options.cpu_slots > 0)
    agent.insert(agent.end(), {"--cpu-slots", absl::StrCat(options.cpu_slots)});
  if (options.secure) {
    const security::SecurityDirectory security = SecurityOf(state);
    coordinator.insert(coordinator.end(), {"--security-dir", security.path});
    agent.insert(agent.end(), {"--tls-dir", security.Agent(kNode)});
    for (const std::string& root : options.roots) {
      for (const char* flag : {"--model-root", "--data-root", "--output-root"}) {
        coordinator.insert(coordinator.end(), {flag, root});
        agent.insert(agent.end(), {flag, root});
      }
    }
  } else if (options.plain_text) {
    coordinator.emplace_back("--plain-text");
    agent.emplace_back("--plain-text");
  }
  return {{kCoordinator, options.listen, coordinator}, {"agent", kNode, agent}};
}

// Starts what of `wanted` does not run and records each as soon as it lives, so that `down` finds
// it whatever happens next.
absl::Status StartMissing(const std::vector<Wanted>& wanted, const std::string& state,
                          UpRecord& record, std::vector<Daemon>& started) {
  SWITCHYARD_RETURN_IF_ERROR(security::MakePrivateDirectory(absl::StrCat(state, "/logs")));
  for (const auto& [name, address, command] : wanted) {
    Daemon* recorded = record.Find(name);
    if (recorded != nullptr && IsRunning(*recorded)) continue;
    SWITCHYARD_ASSIGN_OR_RETURN(
        Daemon daemon, StartDaemon(name, command, absl::StrCat(state, "/logs/", name, ".log")));
    daemon.address = address;
    started.push_back(daemon);
    if (recorded == nullptr) recorded = &record.daemons.emplace_back();
    *recorded = daemon;
    SWITCHYARD_RETURN_IF_ERROR(WriteUpRecord(RecordFile(state), record));
  }
  return absl::OkStatus();
}

std::string Absolute(const std::string& path) {
  return fs::absolute(path).lexically_normal().string();
}

absl::StatusOr<int> Up(CliContext& context, UpArguments arguments) {
  if (arguments.state_dir.empty()) arguments.state_dir = DefaultStateDirectory();
  const std::string state = Absolute(arguments.state_dir);
  UpOptions& options = arguments.options;
  options.listen = context.options.coordinator.address;
  options.plain_text = context.options.coordinator.plain_text;
  // A later `up` may start them from another working directory.
  if (!options.bin_dir.empty()) options.bin_dir = Absolute(options.bin_dir);
  for (std::string& root : options.roots) root = Absolute(root);
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd lock, Lock(state));
  SWITCHYARD_ASSIGN_OR_RETURN(UpRecord record, ReadUpRecord(RecordFile(state)));
  std::vector<Daemon> kept;
  std::copy_if(record.daemons.begin(), record.daemons.end(), std::back_inserter(kept), IsRunning);
  if (kept.size() == kDaemons) {
    return absl::FailedPreconditionError(
        absl::StrCat("already up: the ", kept[0].name, " runs as pid ", kept[0].pid, " (",
                     kept[0].address, "); stop it with `", CommandFor("down", state),
                     "`, or choose another --state-dir, --coordinator and metrics addresses"));
  }
  // What still runs and what is started for it must fit together.
  if (!kept.empty() && record.options.has_value()) options = *record.options;
  record.options = options;
  SWITCHYARD_ASSIGN_OR_RETURN(const Endpoint endpoint, MakeEndpoint(options, state));
  if (kept.empty() || kept[0].name != kCoordinator) {
    SWITCHYARD_RETURN_IF_ERROR(RefuseIfAnswered(endpoint));
  }
  const absl::Time now = absl::Now();
  std::vector<Daemon> started;
  absl::Status status =
      StartMissing(WantedDaemons(options, endpoint, state), state, record, started);
  if (status.ok()) status = WaitUntilReady(endpoint, record.daemons, now);
  if (!status.ok()) {
    StopAll(started).IgnoreError();  // the first error is the one to tell
    if (kept.empty()) fs::remove(RecordFile(state));
    return status;
  }
  if (!kept.empty() && !context.options.json) {
    context.io.out << "The " << kept[0].name << " was up; started the " << started[0].name
                   << " again, with the options of the `up` before.\n";
  }
  Print(context, state, record.daemons);
  if (options.secure && !context.options.json) {
    context.io.out << "Speak to it with:\n  export SWITCHYARD_COORDINATOR=" << endpoint.address
                   << " SWITCHYARD_CA=" << endpoint.authority
                   << " SWITCHYARD_TOKEN_FILE=" << endpoint.token_file << "\n";
  }
  return kExitOk;
}

absl::StatusOr<int> Down(CliContext& context, std::string state_dir) {
  if (state_dir.empty()) state_dir = DefaultStateDirectory();
  state_dir = Absolute(state_dir);
  SWITCHYARD_ASSIGN_OR_RETURN(const UniqueFd lock, Lock(state_dir));
  SWITCHYARD_ASSIGN_OR_RETURN(const UpRecord record, ReadUpRecord(RecordFile(state_dir)));
  const auto running = std::count_if(record.daemons.begin(), record.daemons.end(), IsRunning);
  SWITCHYARD_RETURN_IF_ERROR(StopAll(record.daemons));
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
  UpOptions& options = arguments->options;
  options.cpu_slots = DefaultCpuSlots();
  CLI::App* up = app.add_subcommand(
      "up", "Start a coordinator and an agent on this machine, or the one of them that has ended");
  up->add_option("--cpu-slots", options.cpu_slots,
                 "CPU slots; default the cores, or none where a GPU is")
      ->check(CLI::Range(0, 1024));
  up->add_option("--state-dir", arguments->state_dir, "Where state and logs are kept");
  up->add_option("--metrics", options.metrics, "Coordinator's metrics")->capture_default_str();
  up->add_option("--agent-metrics", options.agent_metrics, "Agent's metrics")
      ->capture_default_str();
  up->add_option("--bin-dir", options.bin_dir,
                 "Where the daemons are; default beside this program");
  up->add_flag("--secure", options.secure,
               "TLS, tokens and an agent's certificate, made in the state directory");
  up->add_option("--root", options.roots,
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
