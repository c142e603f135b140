// JobPlanner that reads the model's directory and asks the planner. Stateless; any thread.
#pragma once

#include "coordinator/launch/job_planner.h"

namespace switchyard::coordinator {

class ModelPlanner final : public JobPlanner {
 public:
  std::vector<rpc::Violation> Inspect(const v1::JobSpec& spec) override;
  absl::StatusOr<v1::Plan> Plan(const v1::JobSpec& spec, const std::vector<PlannerSlot>& slots,
                                std::optional<int64_t> train_sequences) override;
  std::string TrainerConfig(const TrainerConfigInput& input) override;
};

}  // namespace switchyard::coordinator
