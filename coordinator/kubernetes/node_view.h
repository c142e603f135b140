// What Kubernetes says of one node of an attempt: its Job and its pods, read together.
//
// Pure; remembers nothing. Knows what reasons and conditions mean in all versions since 1.20.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/kubernetes/json.h"

namespace switchyard::coordinator {

struct NodeView {
  enum class Stage {
    kWaiting,   // no machine yet
    kStarting,  // has a machine, runs not yet
    kRunning,
    kEnded,  // no process of it is left
  };
  Stage stage = Stage::kWaiting;
  // The Job is there, has not ended and nobody deletes it.
  bool live = false;
  bool deleted = false;      // the Job is gone or is being deleted
  std::string machine;       // Kubernetes' node; empty while it has none
  std::string detail;        // why it waits; a part of a sentence, naming the pod
  std::string failure_code;  // for restart rules; empty: nothing failed
  std::string failure;       // the same for people
};

// `job` is null when there is none. `pods` are all that carry the node's labels, whatever became
// of them.
NodeView ViewNode(const Json* job, const std::vector<const Json*>& pods, absl::Time now);

// When a Job ended; InfiniteFuture while it has not.
absl::Time EndOfJob(const Json& job);
bool IsBeingDeleted(const Json& object);

}  // namespace switchyard::coordinator
