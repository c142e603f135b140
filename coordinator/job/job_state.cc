#include "coordinator/job/job_state.h"

#include <algorithm>
#include <string>
#include <utility>

namespace switchyard::coordinator {
namespace {

using v1::JobState;

constexpr std::pair<JobState, JobState> kTransitions[] = {
    {v1::JOB_STATE_QUEUED, v1::JOB_STATE_RESERVED},
    {v1::JOB_STATE_QUEUED, v1::JOB_STATE_PAUSED},
    {v1::JOB_STATE_QUEUED, v1::JOB_STATE_CANCELLED},
    {v1::JOB_STATE_RESERVED, v1::JOB_STATE_LAUNCHING},
    {v1::JOB_STATE_RESERVED, v1::JOB_STATE_RECOVERING},
    {v1::JOB_STATE_RESERVED, v1::JOB_STATE_PAUSING},
    {v1::JOB_STATE_RESERVED, v1::JOB_STATE_CANCELLING},
    {v1::JOB_STATE_LAUNCHING, v1::JOB_STATE_RUNNING},
    {v1::JOB_STATE_LAUNCHING, v1::JOB_STATE_RECOVERING},
    {v1::JOB_STATE_LAUNCHING, v1::JOB_STATE_PAUSING},
    {v1::JOB_STATE_LAUNCHING, v1::JOB_STATE_CANCELLING},
    {v1::JOB_STATE_RUNNING, v1::JOB_STATE_SUCCEEDED},
    {v1::JOB_STATE_RUNNING, v1::JOB_STATE_RECOVERING},
    {v1::JOB_STATE_RUNNING, v1::JOB_STATE_PAUSING},
    {v1::JOB_STATE_RUNNING, v1::JOB_STATE_CANCELLING},
    {v1::JOB_STATE_PAUSING, v1::JOB_STATE_PAUSED},
    {v1::JOB_STATE_PAUSING, v1::JOB_STATE_SUCCEEDED},  // the end came before the save
    {v1::JOB_STATE_PAUSING, v1::JOB_STATE_RECOVERING},
    {v1::JOB_STATE_PAUSING, v1::JOB_STATE_CANCELLING},
    {v1::JOB_STATE_PAUSED, v1::JOB_STATE_QUEUED},
    {v1::JOB_STATE_PAUSED, v1::JOB_STATE_CANCELLED},
    {v1::JOB_STATE_RECOVERING, v1::JOB_STATE_QUEUED},
    {v1::JOB_STATE_RECOVERING, v1::JOB_STATE_PAUSED},
    {v1::JOB_STATE_RECOVERING, v1::JOB_STATE_SUCCEEDED},  // the result was saved before the failure
    {v1::JOB_STATE_RECOVERING, v1::JOB_STATE_FAILED},
    {v1::JOB_STATE_RECOVERING, v1::JOB_STATE_CANCELLING},
    {v1::JOB_STATE_CANCELLING, v1::JOB_STATE_CANCELLED},
    {v1::JOB_STATE_FAILED, v1::JOB_STATE_QUEUED},     // RetryJob only
    {v1::JOB_STATE_CANCELLED, v1::JOB_STATE_QUEUED},  // RetryJob only
};

}  // namespace

bool IsLegalTransition(JobState from, JobState to) {
  return std::find(std::begin(kTransitions), std::end(kTransitions), std::pair{from, to}) !=
         std::end(kTransitions);
}

bool IsTerminal(JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED ||
         state == v1::JOB_STATE_CANCELLED;
}

bool HoldsSlots(JobState state) {
  switch (state) {
    case v1::JOB_STATE_RESERVED:
    case v1::JOB_STATE_LAUNCHING:
    case v1::JOB_STATE_RUNNING:
    case v1::JOB_STATE_PAUSING:
    case v1::JOB_STATE_RECOVERING:
    case v1::JOB_STATE_CANCELLING:
      return true;
    default:
      return false;
  }
}

const char* StateName(JobState state) {
  static const int kPrefix = sizeof("JOB_STATE_") - 1;
  const std::string& name = v1::JobState_Name(state);
  return name.empty() ? "UNKNOWN" : name.c_str() + kPrefix;
}

}  // namespace switchyard::coordinator
