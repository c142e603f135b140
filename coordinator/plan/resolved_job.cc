#include "coordinator/plan/resolved_job.h"

#include <algorithm>

#include "common/units.h"
#include "coordinator/spec/validate.h"

namespace switchyard::coordinator {
namespace {

std::string ChooseDevice(const PlanInput& input, const std::string& asked) {
  if (asked == "cpu" || asked == "cuda") return asked;
  const bool gpus = std::any_of(input.slots.begin(), input.slots.end(),
                                [](const PlannerSlot& slot) { return slot.device == "cuda"; });
  return gpus ? "cuda" : "cpu";
}

}  // namespace

const char* PrecisionName(Precision precision) {
  return precision == Precision::kFloat32 ? "float32" : "bfloat16";
}

const char* OptimizerName(OptimizerProfile optimizer) {
  return optimizer == OptimizerProfile::kExact ? "exact" : "compact";
}

ResolvedJob ResolveJob(const PlanInput& input) {
  ResolvedJob job;
  job.spec = input.spec;
  job.defaults = ApplyDefaults(job.spec);
  job.device = ChooseDevice(input, job.spec.mesh().device());
  job.device_kind = job.device == "cuda" ? DeviceKind::kCuda : DeviceKind::kCpu;

  v1::TrainingSpec& training = *job.spec.mutable_training();
  if (!training.has_precision()) {
    // Weights in float32 would rule the compact optimizer out, which the user asked for by name.
    const bool narrow = job.device == "cuda" || training.optimizer() == "compact";
    training.set_precision(narrow ? "bfloat16" : "float32");
    job.defaults.emplace_back("training.precision", training.precision());
  }
  if (!training.has_deterministic()) {
    training.set_deterministic(job.device == "cpu");
    job.defaults.emplace_back("training.deterministic",
                              training.deterministic() ? "true" : "false");
  }
  if (!training.has_router_aux_loss_coef()) {
    training.set_router_aux_loss_coef(input.model.router_aux_loss_coef);
    job.defaults.emplace_back("training.router_aux_loss_coef",
                              FormatNumber(input.model.router_aux_loss_coef));
  }
  job.precision = training.precision() == "bfloat16" ? Precision::kBfloat16 : Precision::kFloat32;
  job.optimizer =
      training.optimizer() == "compact" ? OptimizerProfile::kCompact : OptimizerProfile::kExact;
  job.global_batch = std::max(1, training.global_batch_sequences());
  job.sequence_length = std::max(1, job.spec.data().sequence_length());
  return job;
}

}  // namespace switchyard::coordinator
