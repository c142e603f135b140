// What the coordinator tells those who report on it: metrics, exporters.
//
// Called on the coordinator's one writer thread, after the change is stored. Implementations return
// at once, never call back into the coordinator, and never fail it.
#pragma once

#include <string>

#include "common/clock.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/metrics.pb.h"
#include "switchyard/v1/node.pb.h"

namespace switchyard::coordinator {

class JobObserver {
 public:
  virtual ~JobObserver() = default;
  // A job was created or changed; also once for every stored job when the coordinator starts.
  // Progress alone is told at most once a second.
  virtual void OnJobChanged(const v1::Job& job) = 0;
  // A step of all ranks is complete. A step repeated by a later attempt is told again; a held-out
  // loss that arrives after its step is told as the same step again with eval_loss set.
  virtual void OnStep(const v1::Job& job, const v1::StepSample& sample) = 0;
  // A sampled expert load.
  virtual void OnExpertLoad(const v1::Job& job, const v1::ExpertLoad& load) = 0;
  // A job was deleted; `name` is its resource name.
  virtual void OnJobRemoved(const std::string& name) = 0;
  // A node joined or changed its state, flags or slots' holders.
  virtual void OnNodeChanged(const v1::Node& node) = 0;
  // A heartbeat of "nodes/{node}" arrived.
  virtual void OnNodeHeard(const std::string& /*name*/, Clock::WallTime /*time*/) {}
  // "nodes/{node}" is gone for good: forgotten, or lent for an attempt that is over.
  virtual void OnNodeRemoved(const std::string& /*name*/) {}
};

}  // namespace switchyard::coordinator
