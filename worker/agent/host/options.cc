#include "worker/agent/host/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/rpc/credentials.h"
#include "common/status_macros.h"
#include "worker/agent/core/names.h"
#include "worker/agent/host/runtime.h"

namespace switchyard::agent {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxNodeName = 63;
constexpr char kInstalledRuntime[] = "/opt/switchyard/runtime/current";

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "node";
}

// First of `candidates`, relative to the program's directory, that exists; else `otherwise`.
std::string FirstExisting(const fs::path& directory, std::initializer_list<const char*> candidates,
                          const std::string& otherwise) {
  for (const char* candidate : candidates) {
    std::error_code error;
    const fs::path path = directory / candidate;
    // Not canonical(): a virtual environment's python is a link that must be called by this name.
    if (fs::exists(path, error)) return path.lexically_normal().string();
  }
  return otherwise;
}

// Whether `program` can be started as it is named: by its path, or by a name in PATH.
bool CanBeStarted(const std::string& program) {
  const auto is_program = [](const std::string& path) {
    std::error_code error;
    return fs::is_regular_file(path, error) && access(path.c_str(), X_OK) == 0;
  };
  if (program.find('/') != std::string::npos) return is_program(program);
  const char* path = std::getenv("PATH");
  for (const absl::string_view directory : absl::StrSplit(path == nullptr ? "" : path, ':')) {
    if (is_program(absl::StrCat(directory, "/", program))) return true;
  }
  return false;
}

}  // namespace

bool ParseOptions(int argc, char** argv, AgentOptions* options, ParseOutcome* outcome) {
  std::error_code error;
  options->self = fs::read_symlink("/proc/self/exe", error).string();
  const fs::path directory = fs::path(options->self).parent_path();
  options->node = HostName();
  options->trainer = (directory / "switchyard-trainer").string();
  options->python = FirstExisting(
      directory,
      {"../../.venv/bin/python", "../.venv/bin/python", "../lib/switchyard/venv/bin/python"},
      "python3");
  options->prepare_data = FirstExisting(
      directory, {"../../tools/prepare_data.py", "../lib/switchyard/tools/prepare_data.py"},
      (directory / "../../tools/prepare_data.py").lexically_normal().string());

  CLI::App app("Runs training ranks on this node for a Switchyard coordinator.",
               "switchyard-agent");
  app.set_version_flag("--version", SWITCHYARD_VERSION);
  app.add_option("--coordinator", options->coordinator, "HOST:PORT of the coordinator")
      ->capture_default_str();
  app.add_option("--node", options->node, "Name of this node, unique among agents")
      ->capture_default_str();
  app.add_option("--for-attempt", options->for_attempt,
                 "JOB_UID/EPOCH: serve this attempt only, then end and remove --work-dir; set by "
                 "launchers of clusters");
  app.add_option("--cpu-slots", options->cpu_slots,
                 "CPU slots to offer; 0: the GPUs, or without any a slot a core");
  app.add_option("--metrics", options->metrics, "HOST:PORT for /metrics, or \"off\"")
      ->capture_default_str();
  app.add_option("--work-dir", options->work_dir,
                 "Directory for results, logs and state; one agent each")
      ->required();
  app.add_option("--fabric-interface", options->fabric_interface,
                 "Network interface that ranks of several nodes talk over (passed to them as "
                 "NCCL_SOCKET_IFNAME); default: NCCL's choice");
  app.add_option("--fabric-address", options->fabric_address,
                 "Address at which ranks of other nodes reach this one; default: that of "
                 "--fabric-interface, else of the interface towards the coordinator");
  app.add_option("--tls-dir", options->tls_dir,
                 "Directory with ca.crt, tls.crt and tls.key of this node (switchyard-coordinator "
                 "issue-agent)");
  app.add_flag("--plain-text", options->plain_text,
               "Speak to a coordinator on another machine without TLS");
  app.add_option("--model-root", options->model_roots, "Directory that models must be in");
  app.add_option("--data-root", options->data_roots, "Directory that data must be in");
  app.add_option("--output-root", options->output_roots, "Directory that outputs must be in");
  app.add_option("--runtime", options->runtime,
                 absl::StrCat("Directory that switchyard-install-runtime made; default: ",
                              kInstalledRuntime, " where no trainer lies beside this program"));
  const auto* trainer =
      app.add_option("--trainer", options->trainer, "Path of switchyard-trainer; over --runtime")
          ->capture_default_str();
  const auto* python = app.add_option("--python", options->python,
                                      "Python with transformers and pyarrow; over --runtime")
                           ->capture_default_str();
  const auto* prepare_data = app.add_option("--prepare-data", options->prepare_data,
                                            "Path of prepare_data.py; over --runtime")
                                 ->capture_default_str();
  app.add_option("--log-cap-bytes", options->log_cap_bytes,
                 "Size at which a rank's log file is rotated");
  app.add_option(
         "--data-cache-bytes", options->data_cache_bytes,
         "Prepared data kept in WORK_DIR/data-cache for other jobs on the same data; 0: none")
      ->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& parse_error) {
    outcome->exit_code = app.exit(parse_error) == 0 ? 0 : 2;
    return false;
  }
  if (options->runtime.empty() && trainer->count() == 0 && !fs::exists(options->trainer, error) &&
      fs::exists(kInstalledRuntime, error)) {
    options->runtime = kInstalledRuntime;
  }
  if (!options->runtime.empty()) {
    // Where `current` leads now: an upgrade moves the link, and one agent must not mix versions.
    const fs::path resolved = fs::canonical(options->runtime, error);
    if (!error) options->runtime = resolved.string();
    const RuntimePaths paths = PathsOfRuntime(options->runtime);
    if (trainer->count() == 0) options->trainer = paths.trainer;
    if (python->count() == 0) options->python = paths.python;
    if (prepare_data->count() == 0) options->prepare_data = paths.prepare_data;
  }
  for (std::string* path :
       {&options->tls_dir, &options->work_dir, &options->trainer, &options->prepare_data}) {
    if (!path->empty()) *path = fs::absolute(*path, error).lexically_normal().string();
  }
  while (options->work_dir.size() > 1 && options->work_dir.back() == '/')
    options->work_dir.pop_back();
  return true;
}

absl::Status Validate(const AgentOptions& options) {
  std::string undotted = options.node;
  std::erase(undotted, '.');
  if (options.node.size() > kMaxNodeName || !IsSafeUid(undotted)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--node is \"", options.node, "\"; use 1 to 63 letters, digits, '.', '-' or '_'"));
  }
  if (!options.runtime.empty()) {
    SWITCHYARD_RETURN_IF_ERROR(CheckRuntime(options.runtime, SWITCHYARD_VERSION));
  }
  if (options.tls_dir.empty() && !options.plain_text && !rpc::IsLoopback(options.coordinator)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--coordinator is \"", options.coordinator,
        "\", on another machine: give this node's certificate with --tls-dir DIR (made by "
        "switchyard-coordinator issue-agent --node ",
        options.node, "); or, where the network is trusted, --plain-text"));
  }
  if (options.tls_dir.empty() && !options.plain_text && options.metrics != "off" &&
      !rpc::IsLoopback(options.metrics)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--metrics is \"", options.metrics,
        "\": without TLS it is served on loopback only; give --tls-dir DIR, or --plain-text where "
        "everyone may read it"));
  }
  if (!options.tls_dir.empty() && options.model_roots.empty()) {
    return absl::InvalidArgumentError(
        "--tls-dir needs to know which directories jobs may name: give --model-root, --data-root "
        "and --output-root, each as often as needed");
  }
  if (!CanBeStarted(options.trainer)) {
    return absl::NotFoundError(
        absl::StrCat("trainer ", options.trainer,
                     " does not exist or may not be executed; run switchyard-install-runtime, "
                     "build switchyard-trainer, or give --runtime DIR or --trainer PATH"));
  }
  if (!CanBeStarted(options.python)) {
    return absl::NotFoundError(
        absl::StrCat("--python is \"", options.python,
                     "\", which does not exist or may not be executed; run "
                     "switchyard-install-runtime, or give --runtime DIR or --python PATH"));
  }
  if (access(options.prepare_data.c_str(), R_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("--prepare-data is \"", options.prepare_data,
                     "\", which does not exist or may not be read; run "
                     "switchyard-install-runtime, or give --runtime DIR or --prepare-data PATH"));
  }
  if (options.log_cap_bytes < 4096) {
    return absl::InvalidArgumentError(
        absl::StrCat("--log-cap-bytes is ", options.log_cap_bytes, "; must be at least 4096"));
  }
  if (options.data_cache_bytes < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--data-cache-bytes is ", options.data_cache_bytes, "; must not be negative"));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::agent
