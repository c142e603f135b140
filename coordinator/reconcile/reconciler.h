// The only mover of jobs: compares what is wanted with what is, and takes each job at most one
// step.
//
// Sees stored records, reported facts and the clock; writes the book and the outbox. No thread, no
// network.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "coordinator/reconcile/attempt_facts.h"
#include "coordinator/reconcile/core_context.h"
#include "coordinator/schedule/scheduler.h"

namespace switchyard::coordinator {

class Reconciler {
 public:
  explicit Reconciler(CoreContext& core) : core_(core) {}

  // One step of every job, then of the queue. Call again after a commit until nothing is dirty.
  void Step();

 private:
  void StepJob(const std::string& uid);
  void StepIdle(const std::string& uid);
  void StepAttempt(const std::string& uid);
  void AbsorbReports(const std::string& uid);
  void UpdateLive(const std::string& uid, const AttemptFacts& facts);
  // True when the user's wish or a draining node ends the attempt.
  bool Interrupt(const std::string& uid);
  void Fail(const std::string& uid, const Failure& failure, bool found_here);
  // Keeps the job's next attempts off a node for a while.
  void AvoidNode(const std::string& uid, const Failure& failure);
  void DriveStop(const std::string& uid, const AttemptFacts& facts);
  void RequestCheckpoint(const std::string& uid, const AttemptFacts& facts);
  void FinishAttempt(const std::string& uid, const AttemptFacts& facts);
  void DecideAfterFailure(const std::string& uid, const AttemptFacts& facts);
  void CloseAttempt(const std::string& uid, const AttemptFacts& facts,
                    const v1::StateReason& outcome, const Failure* failure);
  void StepQueue();
  void Reserve(const Admission& admission);
  void TellItFits(const std::string& uid);
  void Replan(const std::string& uid);
  void StopStrays();

  CoreContext& core_;
};

// Slots of all nodes that are alive and take jobs. Free are those of ready nodes that no job's
// attempt holds and no agent reports ranks in; the others show what a waiting job waits for.
std::vector<SchedulerSlot> SchedulerSlots(const CoreContext& core);
// Bytes by memory domain that CPU ranks may use there and that no attempt has.
std::map<std::string, int64_t> MachineRoom(const CoreContext& core);
v1::StateReason MakeReason(const std::string& code, const std::string& message,
                           v1::FailureDomain domain = v1::FAILURE_DOMAIN_UNSPECIFIED);

}  // namespace switchyard::coordinator
