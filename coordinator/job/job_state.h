// The job's state machine as one table. Who moves a job asks here; nothing else knows which moves
// are legal.
#pragma once

#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

// True when a job may go from `from` to `to` in one step of the reconciler or on a user's RetryJob.
bool IsLegalTransition(v1::JobState from, v1::JobState to);
// SUCCEEDED, FAILED or CANCELLED.
bool IsTerminal(v1::JobState state);
// States in which an attempt holds slots or may have processes.
bool HoldsSlots(v1::JobState state);
// "RUNNING" for JOB_STATE_RUNNING.
const char* StateName(v1::JobState state);

}  // namespace switchyard::coordinator
