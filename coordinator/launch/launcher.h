// Brings an attempt from reserved slots to running ranks: probe paths, prepare data, plan again
// with real counts, start ranks, relay the rendezvous.
//
// Level-triggered: each call looks at what is stored and reported and sends what is missing.
#pragma once

#include <optional>
#include <string>

#include "coordinator/reconcile/attempt_facts.h"
#include "coordinator/reconcile/core_context.h"

namespace switchyard::coordinator {

// One look at a job in LAUNCHING. A failure ends the attempt; empty while it goes on.
std::optional<Failure> DriveLaunch(CoreContext& core, const std::string& uid,
                                   const AttemptFacts& facts);

// Sends the communicator id to every node of the attempt, once a session; also needed while RUNNING
// when an agent came back in between.
void RelayRendezvous(CoreContext& core, const std::string& uid, const AttemptFacts& facts);

// "nodes and slots" of an attempt as the planner takes them.
std::vector<PlannerSlot> PlannerSlots(const NodeTable& nodes, bool only_usable);

}  // namespace switchyard::coordinator
