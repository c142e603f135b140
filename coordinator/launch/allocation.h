// The part of the core that runs attempts on nodes which a cluster lends for them
// (launch/node_allocator.h). Does nothing without an allocator.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coordinator/reconcile/attempt_facts.h"
#include "coordinator/reconcile/core_context.h"
#include "coordinator/schedule/scheduler.h"

namespace switchyard::coordinator {

// The cluster's slots as the queue sees them: nodes of running attempts are taken whole.
std::vector<SchedulerSlot> OfferedSlots(const CoreContext& core);
// Replaces the offer's node numbers by the names of the attempt's own nodes.
void NameAllocatedNodes(const AttemptKey& attempt, std::vector<Placement>& placements);

// True while `node` of an allocated attempt has not dialled in and still may.
bool AwaitsAgent(const CoreContext& core, const store::v1::JobRecord& record,
                 const std::string& node);
// One look at the allocation of an attempt: what it waits for is told to the user; nodes that will
// not come any more are written off. A failure ends the attempt.
std::optional<Failure> DriveAllocation(CoreContext& core, const std::string& uid,
                                       const AttemptFacts& facts);
// True while an attempt whose agents were ended by somebody else waits for the cluster to say by
// whom (time limit, preemption, an administrator); what it says is then the attempt's failure.
bool AwaitsClusterReason(CoreContext& core, const std::string& uid, const AttemptFacts& facts);
// Every node of the attempt has an agent in session.
bool AllAgentsConnected(const CoreContext& core, const AttemptFacts& facts);
// Tells the agents of an attempt that is over to leave.
void ReleaseAgents(CoreContext& core, const store::v1::JobRecord& record,
                   const AttemptFacts& facts);

// What the store says shall exist. Call when everything is committed.
std::vector<Allocation> WantedAllocations(const CoreContext& core);
// OK for an agent of a current attempt, or of none at all; FailedPrecondition for one whose attempt
// is over.
absl::Status CheckAllocation(const CoreContext& core, const agent::v1::Hello& hello);

}  // namespace switchyard::coordinator
