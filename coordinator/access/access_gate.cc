#include "coordinator/access/access_gate.h"

#include <grpc/grpc.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/status.h"
#include "common/rpc/violations.h"
#include "common/security/certificates.h"
#include "common/security/token.h"
#include "common/status_macros.h"
#include "coordinator/access/request_facts.h"
#include "coordinator/service/rpc_trace.h"

namespace switchyard::coordinator {
namespace {

using grpc::experimental::InterceptionHookPoints;

// Refusals of one caller, or where none is known of one address, that are written down one by one;
// the rest are counted.
constexpr double kRefusalsPerSecond = 2;
constexpr double kRefusalBurst = 50;
constexpr size_t kMostPath = 128;  // of a page, in the text of its refusal

// What gRPC's reflection is called in all its versions.
constexpr absl::string_view kReflection = "grpc.reflection.";

const security::Caller& LocalCaller() {
  static const auto& caller = *new security::Caller{
      "local", "whoever reaches the port", {{security::kAllProjects, security::Role::kAdmin}}};
  return caller;
}

// "ipv4:10.0.0.7:41532" without the port, which changes with every connection.
std::string PeerAddress(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

// The token in an Authorization header: a bearer token, or a password.
std::string TokenOf(const std::string& authorization) {
  if (const auto bearer = security::BearerOf(authorization)) return std::string(*bearer);
  return security::BasicPasswordOf(authorization).value_or("");
}

std::string Property(const grpc::CallbackServerContext* context, const char* name) {
  const auto values = context->auth_context()->FindPropertyValues(name);
  return values.empty() ? "" : std::string(values.front().data(), values.front().size());
}

}  // namespace

// One a call: hears how it ends, and when it is gone.
class AccessGate::CallWatcher final : public grpc::experimental::Interceptor {
 public:
  CallWatcher(AccessGate& gate, grpc::experimental::ServerRpcInfo* info)
      : gate_(gate), context_(info->server_context()) {
    const std::string path = info->method();
    method_ = path.substr(std::min(path.find_first_not_of('/'), path.size()));
    gate_.Begin(context_, method_);
  }
  ~CallWatcher() override { gate_.Forget(context_); }

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    // A service of gRPC's own asks nobody: its calls are judged here.
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA) &&
        absl::StartsWith(method_, kReflection)) {
      refusal_ = rpc::ToGrpcStatus(gate_.AdmitReflection(context_, method_));
      // Before the handler runs, which from now on can neither read nor write.
      if (!refusal_.ok()) {
        grpc_call_cancel_with_status(context_->c_call(),
                                     static_cast<grpc_status_code>(refusal_.error_code()),
                                     refusal_.error_message().c_str(), nullptr);
      }
    }
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::PRE_SEND_STATUS)) {
      if (!refusal_.ok()) methods->ModifySendStatus(refusal_);
      gate_.Ended(context_, methods->GetSendStatus());
    }
    methods->Proceed();
  }

 private:
  AccessGate& gate_;
  grpc::ServerContextBase* const context_;
  std::string method_;
  grpc::Status refusal_;
};

class AccessGate::WatcherFactory final
    : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit WatcherFactory(AccessGate& gate) : gate_(gate) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    return new CallWatcher(gate_, info);
  }

 private:
  AccessGate& gate_;
};

AccessGate::AccessGate(const Options& options)
    : options_(options),
      requests_(options.limits.requests_per_second, options.limits.request_burst),
      refusals_(kRefusalsPerSecond, kRefusalBurst) {}

std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> AccessGate::Interceptor() {
  return std::make_unique<WatcherFactory>(*this);
}

void AccessGate::Begin(const grpc::ServerContextBase* context, const std::string& method) {
  absl::MutexLock lock(&mutex_);
  calls_[context].entry.method = method;
}

void AccessGate::Ended(const grpc::ServerContextBase* context, const grpc::Status& status) {
  AuditEntry entry;
  {
    absl::MutexLock lock(&mutex_);
    Call& call = calls_[context];
    if (!std::exchange(call.audited, false)) return;
    entry = call.entry;
  }
  entry.time = absl::Now();
  entry.result = absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code()));
  if (!status.ok()) entry.message = status.error_message();
  if (options_.audit != nullptr) options_.audit->Write(entry);
}

void AccessGate::Forget(const grpc::ServerContextBase* context) {
  absl::MutexLock lock(&mutex_);
  const auto it = calls_.find(context);
  if (it == calls_.end()) return;
  if (it->second.stream) {
    const auto streams = streams_.find(it->second.caller.id);
    if (--streams->second == 0) streams_.erase(streams);
  }
  calls_.erase(it);
}

absl::StatusOr<security::Caller> AccessGate::Authenticate(const grpc::ServerContextBase* context,
                                                          absl::Time now) {
  if (options_.tokens == nullptr) return LocalCaller();
  const auto header = context->client_metadata().find("authorization");
  if (header == context->client_metadata().end()) {
    return absl::UnauthenticatedError(
        "no token was sent; give one with --token-file or SWITCHYARD_TOKEN_FILE "
        "(metadata \"authorization: Bearer sy_...\")");
  }
  const auto bearer =
      security::BearerOf(absl::string_view(header->second.data(), header->second.size()));
  return options_.tokens->Verify(bearer.value_or(""), now);
}

absl::Status AccessGate::Authorize(const MethodRule& rule, const security::Caller& caller,
                                   const std::string& resource, const std::string& what) {
  const std::string project =
      rule.scope == Scope::kService ? security::kAllProjects : ProjectOf(resource);
  const security::Role held =
      rule.scope == Scope::kAnyProject ? caller.HighestRole() : caller.RoleIn(project);
  if (rule.scope != Scope::kAgent && held >= rule.role) return absl::OkStatus();
  const std::string where = rule.scope == Scope::kAnyProject ? std::string("any project")
                            : project == security::kAllProjects
                                ? std::string("all projects (\"*\")")
                                : absl::StrCat("project \"", project.substr(0, 63), "\"");
  return absl::PermissionDeniedError(absl::StrCat(
      "token ", caller.id, " may not ", what, ": it needs the role ", security::RoleName(rule.role),
      " in ", where, " and has ", security::RoleName(held)));
}

absl::Status AccessGate::TakeShare(const security::Caller& caller, bool stream, absl::Time now) {
  if (options_.tokens == nullptr) return absl::OkStatus();
  if (!requests_.Take(caller.id, now)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("token ", caller.id, " makes more than ", options_.limits.requests_per_second,
                     " requests a second; wait a second and try again"));
  }
  if (!stream) return absl::OkStatus();
  const auto open = streams_.find(caller.id);
  if (open == streams_.end() || open->second < options_.limits.streams_per_caller)
    return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("token ", caller.id, " has ", open->second,
                   " watches and logs open, the most that one may; close some"));
}

void AccessGate::Refused(AuditEntry entry, const absl::Status& status) {
  if (options_.audit == nullptr) return;
  {
    absl::MutexLock lock(&mutex_);
    // Noise from an address does not hide what a known caller tried.
    const std::string key = entry.caller_id.empty() ? PeerAddress(entry.peer) : entry.caller_id;
    if (!refusals_.Take(key, entry.time)) {
      ++unwritten_refusals_;
      return;
    }
    entry.message = std::string(status.message());
    if (unwritten_refusals_ > 0) {
      absl::StrAppend(&entry.message, " (and ", unwritten_refusals_,
                      " refusals before that were not written down)");
      unwritten_refusals_ = 0;
    }
  }
  entry.result = absl::StatusCodeToString(status.code());
  options_.audit->Write(entry);
}

absl::Status AccessGate::Admit(const grpc::CallbackServerContext* context,
                               const google::protobuf::Message& request) {
  AuditEntry entry;
  entry.method = MethodOf(request);
  entry.resource = ResourceOf(request);
  const MethodRule* rule = FindRule(entry.method);
  return AdmitCall(context, rule, std::move(entry), &request);
}

absl::Status AccessGate::AdmitReflection(const grpc::ServerContextBase* context,
                                         const std::string& method) {
  if (options_.tokens == nullptr) return absl::OkStatus();
  static constexpr MethodRule kRule = {"reflection", security::Role::kViewer, Scope::kAnyProject,
                                       /*audited=*/false};
  AuditEntry entry;
  entry.method = method;
  return AdmitCall(context, &kRule, std::move(entry), nullptr);
}

absl::Status AccessGate::AdmitCall(const grpc::ServerContextBase* context, const MethodRule* rule,
                                   AuditEntry entry, const google::protobuf::Message* request) {
  const absl::Time now = absl::Now();
  entry.time = now;
  entry.peer = context->peer();
  entry.trace_id = TraceId(*context);
  const auto refuse = [&](const absl::Status& status, const char* reason) {
    Refused(entry, status);
    return rpc::Error(status.code(), reason, std::string(status.message()));
  };
  const auto caller = Authenticate(context, now);
  if (!caller.ok()) return refuse(caller.status(), "UNAUTHENTICATED");
  entry.caller_id = caller->id;
  entry.caller_name = caller->name;
  if (rule == nullptr) {
    return refuse(absl::PermissionDeniedError("nobody may call this method"), "NOT_IN_TABLE");
  }
  if (const absl::Status status =
          Authorize(*rule, *caller, entry.resource, absl::StrCat("call ", rule->method));
      !status.ok())
    return refuse(status, "PERMISSION_DENIED");
  const bool stream = request == nullptr || AnswersWithStream(*request);
  if (rule->audited) entry.request_sha256 = security::Sha256Hex(request->SerializeAsString());
  absl::Status share;
  {
    absl::MutexLock lock(&mutex_);
    share = TakeShare(*caller, stream, now);
    if (share.ok()) {
      Call& call = calls_[context];
      call = {*caller, entry, /*admitted=*/true, rule->audited, stream};
      if (stream) ++streams_[caller->id];
    }
  }
  return share.ok() ? share : refuse(share, "LIMIT_REACHED");
}

absl::StatusOr<std::optional<std::string>> AccessGate::AdmitAgent(
    const grpc::CallbackServerContext* context) {
  if (options_.tokens == nullptr) return std::optional<std::string>();
  AuditEntry entry;
  entry.time = absl::Now();
  entry.peer = context->peer();
  entry.method = "switchyard.agent.v1.AgentService/Connect";
  entry.trace_id = TraceId(*context);
  const auto refuse = [&](const absl::Status& status) {
    Refused(entry, status);
    return rpc::Error(status.code(), "AGENT_REFUSED", std::string(status.message()));
  };
  const auto node = security::NodeOfAgentUri(Property(context, GRPC_PEER_SPIFFE_ID_PROPERTY_NAME));
  if (!node) {
    return refuse(absl::UnauthenticatedError(
        "an agent must show the certificate of its node; start it with --tls-dir DIR, made by "
        "switchyard-coordinator issue-agent --node NAME"));
  }
  entry.caller_id = absl::StrCat("agent:", *node);
  entry.resource = absl::StrCat("nodes/", *node);
  const auto certificate =
      security::ParseCertificate(Property(context, GRPC_X509_PEM_CERT_PROPERTY_NAME));
  if (!certificate.ok()) return refuse(certificate.status());
  if (absl::Status status = options_.revoked_nodes->Check(*node, certificate->not_before);
      !status.ok()) {
    return refuse(status);
  }
  entry.result = "OK";
  if (options_.audit != nullptr) options_.audit->Write(entry);
  return node;
}

absl::Status AccessGate::AdmitPage(const std::string& authorization, const std::string& peer,
                                   const std::string& path, Scope scope,
                                   const std::string& resource) {
  if (options_.tokens == nullptr) return absl::OkStatus();
  const MethodRule rule = {"HTTP GET", security::Role::kViewer, scope, false};
  AuditEntry entry;
  entry.time = absl::Now();
  entry.peer = absl::StrCat(peer, ":");
  entry.method = rule.method;
  entry.resource = path;
  const auto refuse = [&](const absl::Status& status) {
    Refused(entry, status);
    return status;
  };
  const auto caller = options_.tokens->Verify(TokenOf(authorization), entry.time);
  if (!caller.ok()) return refuse(caller.status());
  entry.caller_id = caller->id;
  entry.caller_name = caller->name;
  if (absl::Status status = Authorize(rule, *caller, resource,
                                      absl::StrCat("read the page ", path.substr(0, kMostPath)));
      !status.ok())
    return refuse(status);
  absl::Status share;
  {
    absl::MutexLock lock(&mutex_);
    share = TakeShare(*caller, /*stream=*/false, entry.time);
  }
  return share.ok() ? share : refuse(share);
}

security::Caller AccessGate::PageCaller(const std::string& authorization) const {
  if (options_.tokens == nullptr) return LocalCaller();
  return options_.tokens->Verify(TokenOf(authorization), absl::Now()).value_or(security::Caller{});
}

security::Caller AccessGate::CallerOf(const grpc::CallbackServerContext* context) const {
  absl::MutexLock lock(&mutex_);
  const auto it = calls_.find(context);
  return it != calls_.end() && it->second.admitted ? it->second.caller : security::Caller{};
}

}  // namespace switchyard::coordinator
