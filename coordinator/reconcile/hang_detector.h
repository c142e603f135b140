// Notices attempts that have stopped moving: processes that live, and say nothing.
//
// A sign of progress is a line of any rank (step, held-out loss, done share of an evaluation) and
// every change of phase or checkpoint. All ranks of an attempt move together, so one that hangs
// silences all. Time counts only while the coordinator itself runs and hears every node.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "coordinator/reconcile/attempt_facts.h"
#include "coordinator/reconcile/core_context.h"

namespace switchyard::coordinator {

// How long an attempt may say nothing in `phase`: many steps' time, as predicted by the plan or
// measured in this attempt (`slowest_step`, seconds, 0: none yet), whichever is longer, and
// `floor` at least. Saving has its own: the time that a slow disk needs for the checkpoint.
std::chrono::milliseconds SilenceLimit(const v1::Plan& plan, v1::JobPhase phase,
                                       double slowest_step, std::chrono::milliseconds floor);

// Counts the silence of a running attempt; the failure HANG when it has become too long. Names the
// rank that is behind the others, if there is one. Call with every look at the attempt.
std::optional<Failure> LookForHang(CoreContext& core, const std::string& uid,
                                   const AttemptFacts& facts);

}  // namespace switchyard::coordinator
