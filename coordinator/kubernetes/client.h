// The few verbs of the Kubernetes API that the launcher needs, with what makes them dependable:
// time limits, back-off, a limit of its own rate, tokens that rotate.
//
// Of one thread, but for Stop. Knows resources by their paths; what their objects mean, others
// know.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/kubernetes/api_access.h"
#include "coordinator/kubernetes/json.h"
#include "coordinator/kubernetes/transport.h"

namespace switchyard::coordinator {

// One kind of objects in one namespace.
struct Resource {
  std::string group;   // "batch"; empty: the core group
  std::string plural;  // "jobs"
  std::string namespace_;

  // "/apis/batch/v1/namespaces/{namespace}/jobs", and of one object.
  std::string Path(const std::string& name = "") const;
};

// "1.20" is {1, 20}.
struct ServerVersion {
  int major = 1;
  int minor = 20;

  bool AtLeast(int other_minor) const { return major > 1 || minor >= other_minor; }
};

struct ObjectList {
  std::vector<Json> items;
  std::string resource_version;  // from which a watch goes on
};

class KubernetesClient {
 public:
  struct Options {
    ApiAccess access;
    double requests_per_second = 20;              // twice as many at once
    absl::Duration patience = absl::Seconds(30);  // tries and pauses of one call together
    absl::Duration request_timeout = absl::Seconds(20);
    absl::Duration first_backoff =
        absl::Milliseconds(250);                      // doubles; Retry-After may ask for more
    absl::Duration watch_timeout = absl::Minutes(4);  // after which the server ends a watch
  };
  explicit KubernetesClient(Options options);

  // Errors of all verbs name verb, path, code, the server's message and what to do. InvalidArgument
  // when the request is refused as wrong, Unauthenticated when the token is not accepted,
  // PermissionDenied with the right that is missing, NotFound, AlreadyExists, Aborted for another
  // conflict, OutOfRange for a resource version that is too old, Unavailable or DeadlineExceeded
  // when it may succeed later: the request may have had its effect. Cancelled after Stop.
  absl::StatusOr<Json> Get(const Resource& resource, const std::string& name);
  // Unknown and mistyped fields are refused where the server can (1.25 and newer).
  absl::StatusOr<Json> Create(const Resource& resource, const Json& object);
  // Only the object of this uid; it stays until what belongs to it, its pods, is gone.
  absl::Status Delete(const Resource& resource, const std::string& name, const std::string& uid);
  // All pages of one consistent list.
  absl::StatusOr<ObjectList> List(const Resource& resource, const std::string& labels);
  // Calls `on_event(type, object)` until the server ends the watch: OK, to be gone on from the
  // newest resource version seen. `on_event` returns an error to end it itself.
  absl::Status Watch(const Resource& resource, const std::string& labels,
                     const std::string& resource_version,
                     const std::function<absl::Status(const std::string&, const Json&)>& on_event);
  // Of the server; asked for once. 1.20 when it does not say.
  absl::StatusOr<ServerVersion> Version();
  // Of "create jobs.batch" and the like, those that the coordinator may not do.
  absl::StatusOr<std::vector<std::string>> MissingRights(
      const std::vector<std::pair<std::string, Resource>>& verbs);

  // False when Stop ended it.
  bool Sleep(absl::Duration duration);
  // From any thread.
  void Stop() { transport_.Stop(); }

 private:
  struct Call {
    std::string verb;  // as RBAC calls it
    std::string path;  // with query
    const Resource* resource = nullptr;
    HttpsRequest request;
  };

  absl::StatusOr<Json> Send(Call call);
  absl::StatusOr<HttpsResponse> SendOnce(Call& call);
  absl::Status ErrorOf(const Call& call, const HttpsResponse& response) const;
  bool WaitForTurn();

  const Options options_;
  Transport transport_;
  TokenFile token_;
  std::optional<ServerVersion> version_;
  double tokens_;  // of the rate limit
  absl::Time refilled_;
  absl::Time quiet_until_ = absl::InfinitePast();  // as Retry-After asks
};

}  // namespace switchyard::coordinator
