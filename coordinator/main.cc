// switchyard-coordinator: flags, signals, exit codes.
#include <signal.h>
#include <sys/prctl.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/service_notifier.h"
#include "common/status_macros.h"
#include "common/telemetry/metrics_page.h"
#include "coordinator/access/method_table.h"
#include "coordinator/access/security_commands.h"
#include "coordinator/kubernetes/allocator.h"
#include "coordinator/kubernetes/config.h"
#include "coordinator/launch/slurm_allocator.h"
#include "coordinator/plan/rates_file.h"
#include "coordinator/report/metrics_sink.h"
#include "coordinator/report/rpc_metrics.h"
#include "coordinator/server.h"

namespace switchyard::coordinator {
namespace {

// After sysexits.h; docs/operations.md lists them.
int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 64;  // usage
    case absl::StatusCode::kUnavailable:
      return 69;  // port taken, directory in use
    case absl::StatusCode::kPermissionDenied:
      return 73;  // directory not writable
    case absl::StatusCode::kResourceExhausted:
      return 74;  // disk full
    case absl::StatusCode::kDataLoss:
      return 65;  // store damaged
    case absl::StatusCode::kFailedPrecondition:
      return 78;  // store of another version
    default:
      return 70;
  }
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "switchyard-coordinator: %s\n", std::string(status.message()).c_str());
  return ExitCode(status);
}

// Until a signal comes: refreshes metrics every minute, and tells systemd that work goes on.
int WaitForSignal(const sigset_t& signals, const Server& server, MetricsSink& sink,
                  ServiceNotifier& systemd) {
  constexpr std::chrono::milliseconds kRefresh = std::chrono::minutes(1);
  const auto pulse = systemd.alive_interval().count() > 0
                         ? std::min(systemd.alive_interval(), kRefresh)
                         : kRefresh;
  const timespec wait{pulse.count() / 1000, pulse.count() % 1000 * 1000000};
  auto refreshed = std::chrono::steady_clock::now();
  int64_t turns = -1;
  while (true) {
    const int signal_number = sigtimedwait(&signals, nullptr, &wait);
    if (signal_number >= 0) return signal_number;
    if (server.turns() != turns) systemd.Alive();
    turns = server.turns();
    if (std::chrono::steady_clock::now() - refreshed < kRefresh) continue;
    refreshed = std::chrono::steady_clock::now();
    sink.Refresh();
  }
}

// Files that say which cluster lends nodes; at most one is given.
struct Clusters {
  std::string kubernetes;
  std::string slurm;
};

// Null without a cluster.
absl::StatusOr<std::unique_ptr<NodeAllocator>> MakeAllocator(const Clusters& clusters) {
  std::unique_ptr<NodeAllocator> allocator;
  if (!clusters.slurm.empty()) {
    SWITCHYARD_ASSIGN_OR_RETURN(auto config, ReadSlurmConfig(clusters.slurm));
    allocator = std::make_unique<SlurmAllocator>(std::move(config));
  } else if (!clusters.kubernetes.empty()) {
    SWITCHYARD_ASSIGN_OR_RETURN(auto config, ReadKubernetesConfig(clusters.kubernetes));
    KubernetesClient::Options client;
    SWITCHYARD_ASSIGN_OR_RETURN(client.access, FindApiServer(config));
    allocator = std::make_unique<KubernetesAllocator>(std::move(config), std::move(client));
  }
  return allocator;
}

int Run(const std::string& listen, const std::string& metrics, const std::string& state_dir,
        const AccessOptions& access, const Clusters& clusters, const std::string& rates) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals,
                  nullptr);  // before any thread starts; taken by sigwait below
  signal(SIGPIPE, SIG_IGN);
  ServiceNotifier systemd;

  absl::StatusOr<std::unique_ptr<NodeAllocator>> allocator = MakeAllocator(clusters);
  if (!allocator.ok()) return Fail(allocator.status());
  ServerOptions options;
  if (!rates.empty()) {
    absl::StatusOr<std::vector<CalibratedRates>> calibrated = ReadRatesFile(rates);
    if (!calibrated.ok()) return Fail(calibrated.status());
    options.calibrated = *std::move(calibrated);
  }
  telemetry::Registry registry;
  const SystemClock clock;
  MetricsSink sink(registry, clock, SWITCHYARD_VERSION);
  const ServiceSeries series(registry);
  if (metrics != "off" && !metrics.empty()) {
    http::Options pages;
    pages.address = metrics;
    if (!access.security_dir.empty()) {
      pages.tls = security::CertificateFiles::In(access.security_dir);
    } else if (absl::Status status = CheckLoopback("--metrics", metrics);
               !status.ok() && !access.plain_text) {
      return Fail(status);
    }
    absl::StatusOr<std::unique_ptr<http::Server>> bound = http::Server::Bind(std::move(pages));
    if (!bound.ok()) return Fail(bound.status());
    (*bound)->Handle("/metrics", [&, page = telemetry::MetricsPage(registry)](const auto& request) {
      sink.Refresh();
      series.SetDisk(state_dir);
      if (!access.security_dir.empty()) series.SetCertificates(access.security_dir);
      return page(request);
    });
    options.http = *std::move(bound);
  }
  options.listen = listen;
  options.state_dir = state_dir;
  options.version = SWITCHYARD_VERSION;
  options.access = access;
  options.series = &series;
  options.observers = {&sink};
  options.allocator = allocator->get();
  options.interceptors.push_back(std::make_unique<RpcMetrics>(
      registry, [](const std::string& method) { return FindRule(method) != nullptr; }));
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(std::move(options));
  if (!server.ok()) return Fail(server.status());
  const std::string metrics_address = (*server)->http_address();
  if (absl::Status status = (*server)->WriteStateFile("metrics-address", metrics_address);
      !status.ok()) {
    return Fail(status);
  }
  log::Info("coordinator.listening", {{"address", (*server)->address()},
                                      {"metrics", metrics_address},
                                      {"state_dir", state_dir},
                                      {"tls", !access.security_dir.empty()}});
  if (access.plain_text) {
    log::Warning("coordinator.plain_text",
                 {{"what", "whoever reaches the port may do everything, and reads along"}});
  }
  systemd.Ready();
  systemd.Status(absl::StrCat("serving on ", (*server)->address()));
  const int signal_number = WaitForSignal(signals, **server, sink, systemd);
  systemd.Stopping();
  log::Info("coordinator.draining", {{"signal", signal_number}});
  server->reset();
  log::Info("coordinator.stopped");
  return 0;
}

void AddAccessOptions(CLI::App& app, AccessOptions& access) {
  app.add_option(
      "--security-dir", access.security_dir,
      "Directory made by `init`: serve TLS 1.3, ask for tokens and agents' certificates");
  app.add_flag("--plain-text", access.plain_text,
               "Serve beyond loopback without TLS and tokens: whoever reaches the port may do all");
  app.add_option("--model-root", access.model_roots, "Directory that models of jobs must be in");
  app.add_option("--data-root", access.data_roots, "Directory that data of jobs must be in");
  app.add_option("--output-root", access.output_roots, "Directory that outputs of jobs must be in");
  app.add_option("--max-requests-per-second", access.limits.requests_per_second,
                 "Of one token, on average; four times as many at once")
      ->check(CLI::Range(0.1, 1e6))
      ->capture_default_str();
  app.add_option("--max-streams-per-token", access.limits.streams_per_caller,
                 "Watches and logs that one token may have open")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--max-jobs-per-project", access.limits.max_jobs_per_project,
                 "Jobs of a project that have not ended")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--max-connection-age", access.max_connection_age_seconds,
                 "Seconds after which a TLS connection is made anew, with certificate and token")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
}

}  // namespace
}  // namespace switchyard::coordinator

int main(int argc, char** argv) {
  CLI::App app{
      "Coordinator of Switchyard: accepts fine-tuning jobs and runs them on the nodes of its "
      "agents."};
  app.set_version_flag("--version", SWITCHYARD_VERSION);
  std::string listen = "127.0.0.1:7070";
  std::string metrics = "127.0.0.1:9464";
  std::string state_dir;
  switchyard::coordinator::Clusters clusters;
  std::string rates;
  switchyard::coordinator::AccessOptions access;
  std::function<absl::Status()> command;
  app.require_subcommand(0, 1);
  app.add_option("--listen", listen, "HOST:PORT for clients and agents; port 0 takes a free one")
      ->capture_default_str();
  app.add_option(
         "--metrics", metrics,
         "HOST:PORT of the pages, /metrics and /healthz; port 0 takes a free one, \"off\" for "
         "none")
      ->capture_default_str();
  app.add_option("--state-dir", state_dir, "Directory of its store and logs; created when missing");
  auto* slurm =
      app.add_option("--slurm", clusters.slurm,
                     "Run jobs in a Slurm cluster as this JSON file says (docs/operations.md)");
  app.add_option("--kubernetes", clusters.kubernetes,
                 "Run jobs in pods of Kubernetes as this JSON file says (docs/operations.md)")
      ->excludes(slurm);
  app.add_option("--rates", rates,
                 "File that switchyard-trainer bench --calibrate wrote: what devices were measured "
                 "to do, for predicted speeds");
  switchyard::coordinator::AddAccessOptions(app, access);
  switchyard::coordinator::AddSecurityCommands(app, command);
  try {
    app.parse(argc, argv);
    if (!command && state_dir.empty()) throw CLI::RequiredError("--state-dir");
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 64;
  }
  if (command) {
    const absl::Status status = command();
    return status.ok() ? 0 : switchyard::coordinator::Fail(status);
  }
  access.limits.request_burst = 4 * access.limits.requests_per_second;
  switchyard::log::SetProcessFields({{"program", "coordinator"}});
  std::string problem;
  if (!switchyard::log::ConfigureFromEnvironment(&problem)) {
    std::fprintf(stderr, "switchyard-coordinator: %s\n", problem.c_str());
    return 64;
  }
  switchyard::rpc::AllowOnlyTls13();
  switchyard::rpc::AdoptGrpcLog();
  // No core dump and no debugger of the same user gets at the server's key.
  if (!access.security_dir.empty()) prctl(PR_SET_DUMPABLE, 0);
  return switchyard::coordinator::Run(listen, metrics, state_dir, access, clusters, rates);
}
