// Planning as the coordinator's core asks for it, so that simulations need neither model files nor
// arithmetic.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/rpc/violations.h"
#include "coordinator/plan/planner.h"
#include "coordinator/plan/trainer_config.h"

namespace switchyard::coordinator {

class JobPlanner {
 public:
  virtual ~JobPlanner() = default;
  // What stands against a new job's model, data and output as they are now; asked once ValidateSpec
  // is content. Nothing where paths lead nowhere, as in simulations.
  virtual std::vector<rpc::Violation> Inspect(const v1::JobSpec& /*spec*/) { return {}; }
  // A plan, feasible or not, over `slots`. InvalidArgument with violations when the model cannot be
  // read. `train_sequences` as prepared, when it is; then free disk is not looked at, the launch
  // has probed it.
  virtual absl::StatusOr<v1::Plan> Plan(const v1::JobSpec& spec,
                                        const std::vector<PlannerSlot>& slots,
                                        std::optional<int64_t> train_sequences) = 0;
  // train.json of an attempt.
  virtual std::string TrainerConfig(const TrainerConfigInput& input) = 0;
};

}  // namespace switchyard::coordinator
