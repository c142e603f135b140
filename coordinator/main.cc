// switchyard-coordinator: flags, signals, exit codes.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "common/log.h"
#include "common/telemetry/metrics_page.h"
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

int Run(const std::string& listen, const std::string& metrics, const std::string& state_dir) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals,
                  nullptr);  // before any thread starts; taken by sigwait below
  signal(SIGPIPE, SIG_IGN);

  telemetry::Registry registry;
  const SystemClock clock;
  MetricsSink sink(registry, clock, SWITCHYARD_VERSION);
  const ServiceSeries series(registry);
  ServerOptions options;
  if (!metrics.empty()) {
    if (absl::Status status = CheckLoopback("--metrics", metrics); !status.ok())
      return Fail(status);
    absl::StatusOr<std::unique_ptr<http::Server>> bound = http::Server::Bind({.address = metrics});
    if (!bound.ok()) return Fail(bound.status());
    (*bound)->Handle("/metrics", [&, page = telemetry::MetricsPage(registry)](const auto& request) {
      sink.Refresh();
      series.SetDisk(state_dir);
      return page(request);
    });
    options.http = *std::move(bound);
  }
  options.listen = listen;
  options.state_dir = state_dir;
  options.series = &series;
  options.observers = {&sink};
  options.interceptors.push_back(std::make_unique<RpcMetrics>(registry));
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(std::move(options));
  if (!server.ok()) return Fail(server.status());
  const std::string metrics_address = (*server)->http_address();
  if (absl::Status status = (*server)->WriteStateFile("metrics-address", metrics_address);
      !status.ok()) {
    return Fail(status);
  }
  log::Info(
      "coordinator.listening",
      {{"address", (*server)->address()}, {"metrics", metrics_address}, {"state_dir", state_dir}});
  const timespec minute{60, 0};
  int signal_number = -1;
  while ((signal_number = sigtimedwait(&signals, nullptr, &minute)) < 0) sink.Refresh();
  log::Info("coordinator.draining", {{"signal", signal_number}});
  server->reset();
  log::Info("coordinator.stopped");
  return 0;
}

}  // namespace
}  // namespace switchyard::coordinator

int main(int argc, char** argv) {
  CLI::App app{
      "Coordinator of Switchyard: accepts fine-tuning jobs and runs them on the nodes of its "
      "agents."};
  std::string listen = "127.0.0.1:7070";
  std::string metrics = "127.0.0.1:9464";
  std::string state_dir;
  app.add_option("--listen", listen, "HOST:PORT for clients and agents; port 0 takes a free one")
      ->capture_default_str();
  app.add_option(
         "--metrics", metrics,
         "HOST:PORT of the pages, /metrics and /healthz; port 0 takes a free one, empty for "
         "none")
      ->capture_default_str();
  app.add_option("--state-dir", state_dir, "Directory of its store and logs; created when missing")
      ->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 64;
  }
  switchyard::log::SetProcessFields({{"program", "coordinator"}});
  std::string problem;
  if (!switchyard::log::ConfigureFromEnvironment(&problem)) {
    std::fprintf(stderr, "switchyard-coordinator: %s\n", problem.c_str());
    return 64;
  }
  return switchyard::coordinator::Run(listen, metrics, state_dir);
}
