#include "coordinator/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <mutex>
#include <set>

#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/notification.h"
#include "common/log.h"
#include "common/rpc/channel.h"
#include "common/status_macros.h"
#include "coordinator/access/guarded_services.h"
#include "coordinator/access/request_facts.h"
#include "coordinator/job/sqlite_job_store.h"
#include "coordinator/launch/model_planner.h"
#include "coordinator/service/agent_service.h"
#include "coordinator/service/job_service.h"
#include "coordinator/service/resource_services.h"
#include "coordinator/service/rpc_trace.h"
#include "coordinator/state_dir.h"
#include "coordinator/web/live_pages.h"

namespace switchyard::coordinator {
namespace {

constexpr std::chrono::seconds kDrainTime{3};
// For calls that are open when a connection's time is over.
constexpr int kMaxConnectionGraceMs = 5000;
constexpr absl::Duration kHealthTime = absl::Seconds(2);

// Removes the logs of deleted jobs.
class LogRemover final : public JobObserver {
 public:
  explicit LogRemover(LogStore& logs) : logs_(logs) {}
  void OnJobChanged(const v1::Job& job) override { uid_by_name_[job.name()] = job.uid(); }
  void OnStep(const v1::Job&, const v1::StepSample&) override {}
  void OnExpertLoad(const v1::Job&, const v1::ExpertLoad&) override {}
  void OnJobRemoved(const std::string& name) override {
    const auto it = uid_by_name_.find(name);
    if (it == uid_by_name_.end()) return;
    logs_.Remove(it->second);
    uid_by_name_.erase(it);
  }
  void OnNodeChanged(const v1::Node&) override {}

 private:
  LogStore& logs_;
  std::map<std::string, std::string> uid_by_name_;
};

// 200 while the writer thread answers: what /healthz says.
http::Handler Health(CoreLoop& loop) {
  return [&loop](const http::Request&) {
    auto answered = std::make_shared<absl::Notification>();
    if (!loop.Post({}, [answered](Core&, const absl::Status&) { answered->Notify(); }))
      return http::TextResponse(503, "shutting down\n");
    return answered->WaitForNotificationWithTimeout(kHealthTime)
               ? http::TextResponse(200, "ok\n")
               : http::TextResponse(503, "the writer thread does not answer; is the disk slow?\n");
  };
}

std::string NewId() {
  static absl::Mutex mutex;
  static auto& gen = *new absl::BitGen();
  absl::MutexLock lock(&mutex);
  return absl::StrFormat("%08x%016x", absl::ToUnixSeconds(absl::Now()),
                         absl::Uniform<uint64_t>(gen));
}

// Pages of a job or of one project's jobs need a viewer of that project. Whoever may see anything
// has the list of all jobs, which leaves out the others', and what a page is made of. All else,
// /metrics too, tells of all projects.
std::function<std::unique_ptr<http::Response>(const http::Request&)> PageAuthority(
    AccessGate& gate) {
  return [&gate](const http::Request& request) -> std::unique_ptr<http::Response> {
    constexpr absl::string_view kJobs = "/jobs/";
    Scope scope = Scope::kProject;
    std::string resource;
    const auto project = request.query.find("project");
    if (absl::StartsWith(request.path, kJobs)) {
      resource = absl::StrCat("projects/", request.path.substr(kJobs.size()));
    } else if (request.path == "/" && project != request.query.end() && !project->second.empty()) {
      resource = absl::StrCat("projects/", project->second);
    } else if (request.path == "/" || absl::StartsWith(request.path, "/assets/")) {
      scope = Scope::kAnyProject;
    }
    const absl::Status status =
        gate.AdmitPage(request.authorization, request.peer, request.path, scope, resource);
    if (status.ok()) return nullptr;
    const int code = absl::IsUnauthenticated(status)     ? 401
                     : absl::IsPermissionDenied(status)  ? 403
                     : absl::IsResourceExhausted(status) ? 429
                                                         : 503;
    auto response = std::make_unique<http::Response>(
        http::TextResponse(code, absl::StrCat(status.message(), "\n")));
    if (code == 401)
      response->headers.emplace_back("WWW-Authenticate",
                                     "Basic realm=\"Switchyard: your token as password\"");
    return response;
  };
}

MaySee SeenBy(security::Caller caller) {
  return [caller = std::move(caller)](const std::string& job) {
    return caller.RoleIn(ProjectOf(job)) >= security::Role::kViewer;
  };
}

}  // namespace

absl::Status CheckAddress(const std::string& flag, const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is \"%s\"; give HOST:PORT, for example 127.0.0.1:7070", flag, address));
  }
  return absl::OkStatus();
}

absl::Status CheckLoopback(const std::string& flag, const std::string& address) {
  SWITCHYARD_RETURN_IF_ERROR(CheckAddress(flag, address));
  if (rpc::IsLoopback(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s is \"%s\": without TLS it is served on loopback only (127.0.0.1, [::1], localhost); "
      "start with --security-dir, or with --plain-text where everyone may read it",
      flag, address));
}

// In the order in which they are made; destroyed the other way round.
struct Server::Parts {
  Parts(StateDir dir, std::unique_ptr<SqliteJobStore> job_store,
        std::unique_ptr<MetricsStore> metrics_store, AccessSetup access_setup,
        std::unique_ptr<AuditLog> audit_log, const ServerOptions& options)
      : state_dir(std::move(dir)),
        access(std::move(access_setup)),
        audit(std::move(audit_log)),
        gate({access.tokens.get(), access.revoked_nodes.get(), audit.get(), options.access.limits}),
        store(std::move(job_store)),
        metrics(std::move(metrics_store)),
        logs(state_dir.logs()),
        log_remover(logs),
        planner(options.calibrated),
        published([this] { watches.Notify(); }),
        watches(published, *metrics),
        log_hub(published, logs),
        agents(published, logs,
               [this](const grpc::CallbackServerContext* context) {
                 return gate.AdmitAgent(context);
               }),
        core(options.core, clock, *store, planner, agents, NewId),
        loop(core, options.series),
        jobs({loop, *store, published, planner, *metrics, watches, log_hub, access.paths,
              options.access.limits.max_jobs_per_project, options.allocator}),
        checkpoints(loop, published),
        nodes(loop,
              [this](const grpc::CallbackServerContext* context) {
                return SeenBy(gate.CallerOf(context));
              }),
        tokens(gate),
        guarded_jobs(gate, jobs),
        guarded_checkpoints(gate, checkpoints),
        guarded_nodes(gate, nodes),
        guarded_tokens(gate, tokens),
        pages(published, *metrics, *store, [this](const http::Request& request) {
          return SeenBy(gate.PageCaller(request.authorization));
        }) {
    agents.SetLoop(&loop);
    core.context().allocator = options.allocator;
    core.AddListener(&published);
    core.AddObserver(metrics.get());  // before `published`: watchers read steps from it
    core.AddObserver(&published);
    core.AddObserver(&log_remover);
    for (JobObserver* observer : options.observers) core.AddObserver(observer);
  }

  StateDir state_dir;
  AccessSetup access;
  std::unique_ptr<AuditLog> audit;
  AccessGate gate;
  SystemClock clock;
  std::unique_ptr<SqliteJobStore> store;
  std::unique_ptr<MetricsStore> metrics;
  LogStore logs;
  LogRemover log_remover;
  ModelPlanner planner;
  PublishedState published;
  WatchHub watches;
  LogHub log_hub;
  AgentServiceImpl agents;
  Core core;
  CoreLoop loop;
  JobServiceImpl jobs;
  CheckpointServiceImpl checkpoints;
  NodeServiceImpl nodes;
  TokenService tokens;
  GuardedJobService guarded_jobs;
  GuardedCheckpointService guarded_checkpoints;
  GuardedNodeService guarded_nodes;
  GuardedAccessService guarded_tokens;
  LivePages pages;
  std::unique_ptr<grpc::Server> server;
  std::string address;
  std::unique_ptr<http::Server> http;  // its handlers use all of the above
};

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(ServerOptions options) {
  SWITCHYARD_RETURN_IF_ERROR(CheckAddress("--listen", options.listen));
  AccessSetup access;
  SWITCHYARD_ASSIGN_OR_RETURN(access, SetUpAccess(options.access, options.listen));
  absl::StatusOr<StateDir> dir = StateDir::Open(options.state_dir);
  if (!dir.ok()) return dir.status();
  std::unique_ptr<SqliteJobStore> store;
  SWITCHYARD_ASSIGN_OR_RETURN(store, SqliteJobStore::Open(dir->database(), options.version));
  std::unique_ptr<MetricsStore> metrics;
  SWITCHYARD_ASSIGN_OR_RETURN(metrics, MetricsStore::Open(dir->metrics_database()));
  std::unique_ptr<AuditLog> audit;
  SWITCHYARD_ASSIGN_OR_RETURN(audit, AuditLog::Open(absl::StrCat(dir->path(), "/audit.log"), {}));
  auto parts = std::make_unique<Parts>(*std::move(dir), std::move(store), std::move(metrics),
                                       std::move(access), std::move(audit), options);
  SWITCHYARD_RETURN_IF_ERROR(parts->core.Start());
  std::set<std::string> uids;
  for (const auto& [uid, record] : parts->core.context().book.jobs()) uids.insert(uid);
  parts->logs.RemoveAllBut(uids);

  static std::once_flag plugins;
  std::call_once(plugins, [] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();  // the gate's interceptor guards it
  });
  grpc::ServerBuilder builder;
  rpc::ConfigureServer(builder);
  int port = 0;
  builder.AddListeningPort(options.listen, parts->access.credentials, &port);
  if (parts->access.tokens != nullptr) {
    const int age_ms = options.access.max_connection_age_seconds * 1000;
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, age_ms);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                               std::min(age_ms, kMaxConnectionGraceMs));
  }
  builder.RegisterService(&parts->guarded_jobs);
  builder.RegisterService(&parts->guarded_checkpoints);
  builder.RegisterService(&parts->guarded_nodes);
  builder.RegisterService(&parts->guarded_tokens);
  builder.RegisterService(&parts->agents);
  parts->loop.Start();
  options.interceptors.push_back(std::make_unique<TraceCalls>());
  // First, so that the others see the status with which it refuses.
  options.interceptors.insert(options.interceptors.begin(), parts->gate.Interceptor());
  builder.experimental().SetInterceptorCreators(std::move(options.interceptors));
  parts->server = builder.BuildAndStart();
  if (parts->server == nullptr || port == 0) {
    parts->loop.Stop();
    return absl::UnavailableError(absl::StrFormat(
        "--listen %s: the port is taken or the address is not of this machine", options.listen));
  }
  parts->address = absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":", port);
  for (const char* service :
       {"switchyard.v1.JobService", "switchyard.v1.CheckpointService", "switchyard.v1.NodeService",
        "switchyard.v1.AccessService", "switchyard.agent.v1.AgentService"}) {
    parts->server->GetHealthCheckService()->SetServingStatus(service, true);
  }
  // From here on calls may be open, and only the destructor ends them.
  std::unique_ptr<Server> server(new Server(std::move(parts)));
  if (options.http != nullptr) {
    options.http->Handle("/healthz", Health(server->parts_->loop));
    if (server->parts_->access.tokens != nullptr)
      options.http->Authorize(PageAuthority(server->parts_->gate));
    server->parts_->pages.AddTo(*options.http);
    server->parts_->http = std::move(options.http);
    server->parts_->http->Serve();
  }
  SWITCHYARD_RETURN_IF_ERROR(server->WriteStateFile("listen-address", server->address()));
  return server;
}

Server::~Server() {
  if (parts_->server == nullptr) return;
  parts_->http.reset();
  parts_->server->GetHealthCheckService()->SetServingStatus(false);
  parts_->watches.Close();
  parts_->log_hub.Close();
  parts_->agents.CloseAll();
  parts_->server->Shutdown(std::chrono::system_clock::now() + kDrainTime);
  parts_->loop.Stop();
  parts_->server->Wait();
}

const std::string& Server::address() const { return parts_->address; }
int64_t Server::turns() const { return parts_->loop.turns(); }

std::string Server::http_address() const {
  return parts_->http == nullptr ? "" : parts_->http->address();
}

absl::Status Server::WriteStateFile(const std::string& name, const std::string& text) const {
  return parts_->state_dir.WriteFile(name, text);
}

}  // namespace switchyard::coordinator
