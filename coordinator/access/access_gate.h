// The gate before every handler: who calls, may they, how much, and a line about it.
//
// Every service that a coordinator serves asks it first (guarded_services.h, and AgentService with
// AdmitAgent). Thread-safe. Knows what a request names, not what it means.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/server_interceptor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/security/revoked_nodes.h"
#include "common/security/token_store.h"
#include "coordinator/access/audit_log.h"
#include "coordinator/access/method_table.h"
#include "coordinator/access/rate_limiter.h"

namespace switchyard::coordinator {

struct AccessLimits {
  double requests_per_second = 100;  // of one caller, on average
  double request_burst = 400;        // at once
  int streams_per_caller = 64;       // watches and logs that are open
  int max_jobs_per_project = 1000;   // that have not ended
};

class AccessGate {
 public:
  struct Options {
    // Null: whoever reaches the port is an administrator ("local"), agents are not asked who they
    // are, and no rate is limited: plain text on loopback.
    security::TokenStore* tokens = nullptr;
    security::RevokedNodes* revoked_nodes = nullptr;  // with tokens
    AuditLog* audit = nullptr;
    AccessLimits limits;
  };

  explicit AccessGate(const Options& options);

  // To be put around every RPC of the server, before all others: the gate hears how each call ends,
  // and ends those of reflection that it refuses.
  std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface> Interceptor();

  // Unauthenticated, PermissionDenied or ResourceExhausted; OK once for a call, which counts it.
  absl::Status Admit(const grpc::CallbackServerContext* context,
                     const google::protobuf::Message& request);
  // The node that the peer's certificate is of; empty where agents are not asked.
  absl::StatusOr<std::optional<std::string>> AdmitAgent(const grpc::CallbackServerContext* context);
  // A page over HTTP, by its Authorization header: a bearer token, or one as a password. `scope`
  // and `resource` say whose viewers may read it. Refusals as of Admit.
  absl::Status AdmitPage(const std::string& authorization, const std::string& peer,
                         const std::string& path, Scope scope, const std::string& resource);
  // Who sent that header; nobody, without a grant, when it is not good.
  security::Caller PageCaller(const std::string& authorization) const;
  // A call of gRPC's server reflection, which describes the API to tools: any role will do.
  // Refusals as of Admit.
  absl::Status AdmitReflection(const grpc::ServerContextBase* context, const std::string& method);
  // Of a call that was admitted.
  security::Caller CallerOf(const grpc::CallbackServerContext* context) const;

  security::TokenStore* tokens() const { return options_.tokens; }
  const AccessLimits& limits() const { return options_.limits; }

 private:
  class CallWatcher;
  class WatcherFactory;
  // A call that is under way.
  struct Call {
    security::Caller caller;
    AuditEntry entry;
    bool admitted = false;
    bool audited = false;  // when it ends
    bool stream = false;
  };

  // `entry` has method and resource; a null `rule`: there is none; a null `request`: a stream that
  // is not audited.
  absl::Status AdmitCall(const grpc::ServerContextBase* context, const MethodRule* rule,
                         AuditEntry entry, const google::protobuf::Message* request);
  absl::StatusOr<security::Caller> Authenticate(const grpc::ServerContextBase* context,
                                                absl::Time now);
  // `what` is asked for: "call METHOD".
  static absl::Status Authorize(const MethodRule& rule, const security::Caller& caller,
                                const std::string& resource, const std::string& what);
  absl::Status TakeShare(const security::Caller& caller, bool stream, absl::Time now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Refused(AuditEntry entry, const absl::Status& status);

  void Begin(const grpc::ServerContextBase* context, const std::string& method);
  void Ended(const grpc::ServerContextBase* context, const grpc::Status& status);
  void Forget(const grpc::ServerContextBase* context);

  const Options options_;
  mutable absl::Mutex mutex_;
  std::map<const grpc::ServerContextBase*, Call> calls_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, int> streams_ ABSL_GUARDED_BY(mutex_);  // by caller
  RateLimiter requests_ ABSL_GUARDED_BY(mutex_);
  RateLimiter refusals_ ABSL_GUARDED_BY(mutex_);  // that are written down
  int64_t unwritten_refusals_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::coordinator
