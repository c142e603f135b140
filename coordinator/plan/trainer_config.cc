#include "coordinator/plan/trainer_config.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "coordinator/spec/validate.h"

namespace switchyard::coordinator {
namespace {

using trainer::v1::TrainerConfig;

void FillTraining(const v1::JobSpec& spec, const v1::Plan& plan, int64_t train_sequences,
                  TrainerConfig::Training& out) {
  const v1::TrainingSpec& training = spec.training();
  out.set_total_steps(TotalSteps(spec, plan, train_sequences));
  out.set_global_batch_sequences(plan.global_batch_sequences());
  out.set_micro_batch_sequences(plan.micro_batch_sequences());
  out.set_learning_rate(training.learning_rate());
  out.set_beta1(training.beta1());
  out.set_beta2(training.beta2());
  out.set_eps(training.eps());
  out.set_weight_decay(training.weight_decay());
  out.set_warmup_steps(static_cast<int64_t>(
      std::ceil(training.warmup_ratio() * static_cast<double>(out.total_steps()))));
  out.set_schedule(training.schedule());
  out.set_min_learning_rate_ratio(training.min_learning_rate_ratio());
  out.set_max_grad_norm(training.max_grad_norm());
  out.set_seed(training.seed());
  out.set_router_aux_loss_coef(training.router_aux_loss_coef());
  out.set_deterministic(training.deterministic() || plan.device() == "cpu");
  out.set_eval_interval_steps(training.eval_interval_steps());
  // A trainer of the release before knows no such field, and none is needed most often.
  if (!plan.activation_memory_by_trainer() && !plan.activation_memory().empty())
    out.set_activation_memory(plan.activation_memory());
}

}  // namespace

int64_t TotalSteps(const v1::JobSpec& spec, const v1::Plan& plan, int64_t train_sequences) {
  if (spec.training().has_steps()) return std::max<int64_t>(1, spec.training().steps());
  const double epochs = spec.training().has_epochs() ? spec.training().epochs() : 1;
  const auto batch = static_cast<double>(std::max(1, plan.global_batch_sequences()));
  const auto sequences = static_cast<double>(train_sequences);
  // An epoch ends with a step of its own, filled with empty sequences.
  const double whole = std::floor(epochs);
  const double steps =
      whole * std::ceil(sequences / batch) + std::ceil((epochs - whole) * sequences / batch);
  return std::max<int64_t>(1, std::llround(steps));
}

TrainerConfig MakeTrainerConfig(const TrainerConfigInput& input) {
  SWITCHYARD_CHECK(input.plan.feasible(), "only a feasible plan can be launched");
  v1::JobSpec spec = input.spec;
  ApplyDefaults(spec);
  // What the planner decided by device and model is among the plan's defaults only; the model's own
  // weight of the load-balancing loss has no other source here.
  if (!spec.training().has_router_aux_loss_coef()) {
    const auto& defaults = input.plan.defaults();
    const auto it = defaults.find("training.router_aux_loss_coef");
    spec.mutable_training()->set_router_aux_loss_coef(it == defaults.end() ? 0
                                                                           : std::stod(it->second));
  }
  TrainerConfig config;
  config.set_job(input.job_name);
  config.set_job_uid(input.job_uid);
  config.set_epoch(input.epoch);
  config.set_ranks(input.plan.ranks());
  config.set_expert_parallel(input.plan.expert_parallel());
  config.set_device(input.plan.device());
  config.set_precision(input.plan.precision());
  config.set_optimizer(input.plan.optimizer());
  config.set_model(spec.model());
  config.set_train_data(input.data.train_dir());
  config.set_eval_data(input.data.eval_dir());
  config.set_sequence_length(input.plan.sequence_length());
  FillTraining(spec, input.plan, input.data.train_sequences(), *config.mutable_training());
  config.mutable_checkpoint()->set_output(spec.checkpoint().output());
  config.mutable_checkpoint()->set_interval_steps(spec.checkpoint().interval_steps());
  config.set_resume_from(input.resume_from);
  return config;
}

std::string TrainerConfigJson(const TrainerConfig& config) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(config, &json, options);
  SWITCHYARD_CHECK(status.ok(), "a message of numbers and texts always has a JSON form");
  return json;
}

}  // namespace switchyard::coordinator
