// The objects of an attempt in Kubernetes, as JSON: a Job of one pod for each of its nodes, and a
// headless Service for the pods' names.
//
// One Job a node, because a pod must know which node of the attempt it is, and only Kubernetes 1.21
// and newer number the pods of one Job. No calls, no state; pods.h reads what becomes of them.
#pragma once

#include <optional>
#include <string>

#include "coordinator/kubernetes/client.h"
#include "coordinator/kubernetes/json.h"
#include "coordinator/launch/node_allocator.h"
#include "switchyard/launch/v1/kubernetes.pb.h"

namespace switchyard::coordinator {

// One node of an attempt.
struct NodePlace {
  AttemptKey attempt;
  int index = 0;

  bool operator==(const NodePlace&) const = default;
};

// "switchyard-{store_id}-{job_uid}-e{epoch}", the Service; each Job adds "-{index}". The same for
// every try to make them.
std::string ServiceNameOf(const std::string& store_id, const AttemptKey& attempt);
std::string JobNameOf(const std::string& store_id, const NodePlace& place);

// Selects all that this store's coordinator has made.
std::string SelectorOf(const std::string& store_id);
// Whose a Job or pod is by its labels; empty when not this store's.
std::optional<NodePlace> PlaceOf(const std::string& store_id, const Json& object);
// That a Job of the right name is this store's, of this place. FailedPrecondition says whose else.
absl::Status CheckOwner(const std::string& store_id, const NodePlace& place, const Json& job);

// Fields that `version` does not know are left out.
Json JobObject(const launch::v1::KubernetesConfig& config, const ServerVersion& version,
               const std::string& store_id, const Allocation& allocation, int index);
// Belongs to `job`, the attempt's first, and goes with it.
Json ServiceObject(const std::string& store_id, const AttemptKey& attempt, const Json& job);

// `over` laid over `base`: objects are merged, lists appended (an element with the "name" of one
// that is there replaces it, a mount one with its "mountPath"), anything else replaced.
void Merge(Json& base, const Json& over);

}  // namespace switchyard::coordinator
