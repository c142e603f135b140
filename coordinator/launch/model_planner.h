// JobPlanner that reads the model's directory and asks the planner. Never changes; any thread.
#pragma once

#include <utility>
#include <vector>

#include "coordinator/launch/job_planner.h"
#include "coordinator/plan/device_rates.h"

namespace switchyard::coordinator {

class ModelPlanner final : public JobPlanner {
 public:
  // `calibrated`: rates that come before the planner's table.
  explicit ModelPlanner(std::vector<CalibratedRates> calibrated = {})
      : calibrated_(std::move(calibrated)) {}

  std::vector<rpc::Violation> Inspect(const v1::JobSpec& spec) override;
  absl::StatusOr<v1::Plan> Plan(const v1::JobSpec& spec, const std::vector<PlannerSlot>& slots,
                                std::optional<int64_t> train_sequences) override;
  std::string TrainerConfig(const TrainerConfigInput& input) override;

 private:
  std::vector<CalibratedRates> calibrated_;
};

}  // namespace switchyard::coordinator
