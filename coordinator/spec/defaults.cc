#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/units.h"
#include "coordinator/spec/validate.h"

namespace switchyard::coordinator {

std::vector<std::pair<std::string, std::string>> ApplyDefaults(v1::JobSpec& spec) {
  std::vector<std::pair<std::string, std::string>> filled;
  v1::TrainingSpec& training = *spec.mutable_training();
  const auto number = [&](bool present, const char* field, double value, auto setter) {
    if (present) return;
    (training.*setter)(value);
    filled.emplace_back(absl::StrCat("training.", field), FormatNumber(value));
  };
  const auto text = [&](const std::string& present, const char* field, const char* value,
                        std::string* target) {
    if (!present.empty()) return;
    *target = value;
    filled.emplace_back(field, value);
  };

  text(spec.project(), "project", "default", spec.mutable_project());
  if (!spec.data().has_sequence_length()) {
    spec.mutable_data()->set_sequence_length(4096);
    filled.emplace_back("data.sequence_length", "4096");
  }
  using T = v1::TrainingSpec;
  number(training.has_epochs() || training.has_steps(), "epochs", 1, &T::set_epochs);
  number(training.has_learning_rate(), "learning_rate", 1e-5, &T::set_learning_rate);
  number(training.has_beta1(), "beta1", 0.9, &T::set_beta1);
  number(training.has_beta2(), "beta2", 0.999, &T::set_beta2);
  number(training.has_eps(), "eps", 1e-8, &T::set_eps);
  number(training.has_weight_decay(), "weight_decay", 0, &T::set_weight_decay);
  number(training.has_warmup_ratio(), "warmup_ratio", 0.03, &T::set_warmup_ratio);
  number(training.has_min_learning_rate_ratio(), "min_learning_rate_ratio", 0,
         &T::set_min_learning_rate_ratio);
  number(training.has_max_grad_norm(), "max_grad_norm", 1, &T::set_max_grad_norm);
  if (!training.has_global_batch_sequences()) {
    training.set_global_batch_sequences(64);
    filled.emplace_back("training.global_batch_sequences", "64");
  }
  if (!training.has_seed()) {
    training.set_seed(0);
    filled.emplace_back("training.seed", "0");
  }
  if (!training.has_eval_interval_steps()) {
    training.set_eval_interval_steps(0);
    filled.emplace_back("training.eval_interval_steps", "0");
  }
  if (!training.has_schedule()) {
    training.set_schedule("cosine");
    filled.emplace_back("training.schedule", "cosine");
  }
  if (!training.has_optimizer()) {
    training.set_optimizer("exact");
    filled.emplace_back("training.optimizer", "exact");
  }
  text(spec.mesh().device(), "mesh.device", "auto", spec.mutable_mesh()->mutable_device());
  if (!spec.checkpoint().has_keep()) {
    spec.mutable_checkpoint()->set_keep(2);
    filled.emplace_back("checkpoint.keep", "2");
  }
  if (!spec.restart().has_max_attempts()) {
    spec.mutable_restart()->set_max_attempts(5);
    filled.emplace_back("restart.max_attempts", "5");
  }
  return filled;
}

}  // namespace switchyard::coordinator
