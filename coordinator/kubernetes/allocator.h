// Nodes lent by Kubernetes: for each node of an attempt one Job of one pod, whose agent dials in.
//
// Two caches keep this store's Jobs and pods; a thread looks at them after every change and every
// few seconds. Names come from store, job and epoch, so whatever happens to a coordinator or to an
// answer, a node has one Job: nothing is made before a list has shown that it is not there, and a
// name that is taken is adopted when its labels say that it is ours. What is not wanted any more is
// deleted. Pods are never replaced: when one ends, the attempt's others are ended too, so that the
// allocation ends as a whole, with the reason of the first.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/kubernetes/client.h"
#include "coordinator/kubernetes/node_view.h"
#include "coordinator/kubernetes/object_cache.h"
#include "coordinator/kubernetes/objects.h"
#include "coordinator/launch/node_allocator.h"
#include "coordinator/launch/wish_board.h"

namespace switchyard::coordinator {

class KubernetesAllocator final : public NodeAllocator {
 public:
  // `config` as ReadKubernetesConfig gives it. `client.access` names server and namespace.
  KubernetesAllocator(launch::v1::KubernetesConfig config, KubernetesClient::Options client);
  // Jobs and pods go on; the next coordinator finds them.
  ~KubernetesAllocator() override;

  std::vector<PlannerSlot> Offer() const override;
  void Want(const std::string& store_id, std::vector<Allocation> allocations) override;
  AllocationStatus Look(const AttemptKey& attempt) const override;

 private:
  struct Known {
    std::string uid;  // of the Job that was made or adopted; empty: none yet
    bool gone = false;
    bool deleted_by_us = false;
    bool was_kept = false;  // seen without anybody deleting it
  };
  // What is remembered of an attempt while it is wanted.
  struct Memory {
    std::vector<Known> nodes;
    std::string failure_code;  // the first; empty: none
    std::string failure;
    bool ran = false;                                // all pods at once
    absl::Time held_since = absl::InfiniteFuture();  // by some pods, without the others
    bool has_service = false;
  };
  // Jobs and pods of one node, from the caches.
  struct Found {
    std::shared_ptr<const Json> job;
    std::vector<std::shared_ptr<const Json>> pods;
  };
  using FoundNodes = std::map<int, Found>;

  void Run();
  // Starts the caches, once the store has said its name.
  void Begin(const std::string& store_id);
  void TellMissingRights();
  // False, and said once, while the caches are not up to date.
  bool IsReachable();
  // What was seen stays; who waits without having been seen is told why.
  void ShowTrouble(const Wish& wish);
  void Turn(const Wish& wish);
  AllocationStatus Drive(const Allocation& allocation, FoundNodes found);
  // Whether the Job is there after all, was deleted, or is to be made.
  absl::Status Settle(const Allocation& allocation, int index, Known& known, Found& found,
                      Memory& memory);
  absl::Status Make(const Allocation& allocation, int index, Known& known, Found& found);
  absl::Status MakeService(const Allocation& allocation, const Json& first_job);
  bool IsJobDeleted(const Allocation& allocation, size_t index);
  void NoteFailures(const Allocation& allocation, const std::vector<NodeView>& views,
                    Memory& memory);
  void EndAll(const FoundNodes& found, const std::vector<NodeView>& views, Memory& memory,
              const std::string& why);
  void EndWhatIsOver(const std::map<AttemptKey, FoundNodes>& left);
  bool Delete(const Json& job, const std::string& why);

  const launch::v1::KubernetesConfig config_;
  const KubernetesClient::Options options_;
  const Resource jobs_, pods_, services_;
  WishBoard board_;

  // Of the thread, but for client_'s Stop.
  KubernetesClient client_;
  std::string store_id_;
  std::unique_ptr<ObjectCache> job_cache_, pod_cache_;
  std::map<AttemptKey, Memory> memory_;
  std::map<AttemptKey, absl::Time> over_since_;  // attempts that were wanted and are not any more
  std::string problem_;                          // with the server; empty: none
  std::thread thread_;
};

}  // namespace switchyard::coordinator
