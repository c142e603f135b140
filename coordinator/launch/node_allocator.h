// Nodes that exist for one attempt only: asked of a cluster's own scheduler, which starts an agent
// on each of them. The agents dial in like any other; from then on nothing is special about them.
//
// The core says again and again what shall exist; an implementation makes it so on a thread of its
// own and tells what it sees. It decides nothing about jobs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/plan/planner.h"
#include "coordinator/schedule/node_table.h"

namespace switchyard::coordinator {

// What one attempt needs of the cluster.
struct Allocation {
  AttemptKey attempt;
  std::string job;  // resource name, for people who look at the cluster's own tools
  int nodes = 0;
  int slots_per_node = 0;
  // False: it shall end, and nothing new be asked for.
  bool keep = true;
};

enum class AllocationState {
  kUnknown,  // not asked for yet, or the cluster does not answer
  kPending,  // the cluster has it in its queue
  kRunning,  // agents are being started or run
  kEnded,    // no process of it is left
};

struct AllocationStatus {
  AllocationState state = AllocationState::kUnknown;
  std::string code;    // kEnded: what restart rules know it by; empty when it ended as asked
  std::string detail;  // one sentence: where it runs, why it waits, how it ended
};

class NodeAllocator {
 public:
  virtual ~NodeAllocator() = default;
  // Slots of all nodes that one job could get if nobody else had any; nodes are numbered "0",
  // "1"...
  virtual std::vector<PlannerSlot> Offer() const = 0;
  // All that this coordinator's store knows of; whatever else of it the cluster has, attempts that
  // are over, is to be ended. Returns at once.
  virtual void Want(const std::string& store_id, std::vector<Allocation> allocations) = 0;
  virtual AllocationStatus Look(const AttemptKey& attempt) const = 0;
};

// Name by which the agent of an allocation's node `index` dials in.
std::string AllocatedNodeName(const AttemptKey& attempt, int index);
// What such an agent says for whom it was started: "{job_uid}/{epoch}".
std::string AllocationName(const AttemptKey& attempt);

}  // namespace switchyard::coordinator
