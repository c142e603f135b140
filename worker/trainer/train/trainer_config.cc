#include "worker/trainer/train/trainer_config.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/model/activation_memory.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

// Takes fields out of one JSON object and remembers what was wrong and what was never asked for.
class Fields {
 public:
  Fields(const json& object, std::string prefix, std::vector<std::string>* problems)
      : object_(object), prefix_(std::move(prefix)), problems_(problems) {}

  void Take(const char* name, std::string* out) {
    if (const json* value = Find(name)) {
      if (value->is_string()) {
        *out = value->get<std::string>();
      } else {
        Wrong(name, *value, "a string");
      }
    }
  }
  void Take(const char* name, bool* out) {
    if (const json* value = Find(name)) {
      if (value->is_boolean()) {
        *out = value->get<bool>();
      } else {
        Wrong(name, *value, "true or false");
      }
    }
  }
  void Take(const char* name, double* out) {
    if (const json* value = Find(name)) {
      if (value->is_number()) {
        *out = value->get<double>();
      } else {
        Wrong(name, *value, "a number");
      }
    }
  }
  // protobuf's JSON writes int64 as a string.
  void Take(const char* name, int64_t* out) {
    if (const json* value = Find(name)) {
      if (value->is_number_integer()) {
        *out = value->get<int64_t>();
      } else if (!value->is_string() || !absl::SimpleAtoi(value->get<std::string>(), out)) {
        Wrong(name, *value, "an integer");
      }
    }
  }
  const json* Object(const char* name) {
    const json* value = Find(name);
    if (value != nullptr && !value->is_object()) {
      Wrong(name, *value, "an object");
      return nullptr;
    }
    return value;
  }
  void RefuseTheRest() {
    for (const auto& [name, value] : object_.items()) {
      if (!taken_.contains(name))
        problems_->push_back(absl::StrFormat("%s%s is not a known field", prefix_, name));
    }
  }

 private:
  const json* Find(const char* name) {
    taken_.insert(name);
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  void Wrong(const char* name, const json& value, const char* wanted) {
    problems_->push_back(
        absl::StrFormat("%s%s is %s; must be %s", prefix_, name, value.dump(), wanted));
  }

  const json& object_;
  std::string prefix_;
  std::vector<std::string>* problems_;
  std::set<std::string> taken_;
};

class Checks {
 public:
  explicit Checks(std::vector<std::string>* problems) : problems_(problems) {}

  void Present(const char* name, const std::string& value) {
    if (value.empty()) problems_->push_back(absl::StrFormat("%s is missing", name));
  }
  void AtLeast(const char* name, int64_t value, int64_t least) {
    if (value < least)
      problems_->push_back(absl::StrFormat("%s is %d; must be at least %d", name, value, least));
  }
  // `least` <= value < `below`.
  void Range(const char* name, double value, double least, double below) {
    if (!(value >= least && value < below)) {
      problems_->push_back(
          absl::StrFormat("%s is %g; must be at least %g and below %g", name, value, least, below));
    }
  }
  void Positive(const char* name, double value) {
    if (!(value > 0 && std::isfinite(value))) {
      problems_->push_back(absl::StrFormat("%s is %g; must be greater than 0", name, value));
    }
  }
  void OneOf(const char* name, const std::string& value, const std::vector<std::string>& allowed) {
    for (const std::string& candidate : allowed) {
      if (value == candidate) return;
    }
    problems_->push_back(absl::StrFormat("%s is \"%s\"; must be one of %s", name, value,
                                         absl::StrJoin(allowed, ", ")));
  }

 private:
  std::vector<std::string>* problems_;
};

void Validate(const TrainerConfig& c, std::vector<std::string>* problems) {
  Checks check(problems);
  const double infinity = std::numeric_limits<double>::infinity();
  for (char letter : c.job_uid) {  // part of paths and of shared-memory names
    if (!std::isalnum(static_cast<unsigned char>(letter)) && letter != '-' && letter != '_') {
      problems->push_back(
          absl::StrFormat("job_uid is \"%s\"; may hold letters, digits, - and _ only", c.job_uid));
      break;
    }
  }
  check.Range("length of job_uid", static_cast<double>(c.job_uid.size()), 1, 129);
  check.AtLeast("epoch", c.epoch, 0);
  check.AtLeast("ranks", c.ranks, 1);
  check.AtLeast("expert_parallel", c.expert_parallel, 1);
  check.OneOf("device", c.device, {"cpu", "cuda"});
  check.OneOf("precision", c.precision, {"float32", "bfloat16"});
  check.OneOf("optimizer", c.optimizer, {"exact", "compact"});
  if (c.optimizer == "compact" && (c.device != "cuda" || c.precision != "bfloat16")) {
    problems->push_back(
        "optimizer is \"compact\", which needs device cuda and precision bfloat16; use \"exact\"");
  }
  check.Present("model", c.model);
  check.Present("train_data", c.train_data);
  check.Present("checkpoint.output", c.checkpoint.output);
  check.AtLeast("sequence_length", c.sequence_length, 1);
  check.AtLeast("threads", c.threads, 0);
  check.AtLeast("expert_load_interval_steps", c.expert_load_interval_steps, 0);
  check.AtLeast("checkpoint.interval_steps", c.checkpoint.interval_steps, 0);
  const TrainerConfig::Training& t = c.training;
  check.AtLeast("training.total_steps", t.total_steps, 1);
  check.AtLeast("training.global_batch_sequences", t.global_batch_sequences, 1);
  check.AtLeast("training.micro_batch_sequences", t.micro_batch_sequences, 1);
  check.Range("training.learning_rate", t.learning_rate, 0, infinity);
  check.Range("training.beta1", t.beta1, 0, 1);
  check.Range("training.beta2", t.beta2, 0, 1);
  check.Positive("training.eps", t.eps);
  check.Range("training.weight_decay", t.weight_decay, 0, infinity);
  check.AtLeast("training.warmup_steps", t.warmup_steps, 0);
  check.OneOf("training.schedule", t.schedule, {"cosine", "linear", "constant"});
  check.Range("training.min_learning_rate_ratio", t.min_learning_rate_ratio, 0, 1.0000001);
  check.Range("training.max_grad_norm", t.max_grad_norm, 0, infinity);
  check.Range("training.router_aux_loss_coef", t.router_aux_loss_coef, 0, infinity);
  check.AtLeast("training.eval_interval_steps", t.eval_interval_steps, 0);
  if (!t.activation_memory.empty()) {
    check.OneOf("training.activation_memory", t.activation_memory, ActivationMemoryNames());
  }
}

}  // namespace

std::string TrainerConfig::StagePath(int64_t step) const {
  return absl::StrFormat("%s/checkpoints/.stage-%s-e%d-step-%d", checkpoint.output, job_uid, epoch,
                         step);
}

std::string TrainerConfig::CheckpointPath(int64_t step) const {
  return absl::StrFormat("%s/checkpoints/step-%d", checkpoint.output, step);
}

std::string TrainerConfig::FinalStagePath() const {
  return absl::StrFormat("%s/.stage-%s-e%d-final", checkpoint.output, job_uid, epoch);
}

std::string TrainerConfig::FinalPath() const { return checkpoint.output + "/final"; }

absl::StatusOr<TrainerConfig> ParseTrainerConfig(const std::string& json_text) {
  const json document = json::parse(json_text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object())
    return absl::InvalidArgumentError("the trainer's configuration is not a JSON object");
  TrainerConfig c;
  std::vector<std::string> problems;
  Fields fields(document, "", &problems);
  fields.Take("job", &c.job);
  fields.Take("job_uid", &c.job_uid);
  fields.Take("epoch", &c.epoch);
  fields.Take("ranks", &c.ranks);
  fields.Take("expert_parallel", &c.expert_parallel);
  fields.Take("device", &c.device);
  fields.Take("precision", &c.precision);
  fields.Take("optimizer", &c.optimizer);
  fields.Take("model", &c.model);
  fields.Take("train_data", &c.train_data);
  fields.Take("eval_data", &c.eval_data);
  fields.Take("sequence_length", &c.sequence_length);
  fields.Take("resume_from", &c.resume_from);
  fields.Take("threads", &c.threads);
  fields.Take("expert_load_interval_steps", &c.expert_load_interval_steps);
  if (const json* object = fields.Object("training")) {
    Fields training(*object, "training.", &problems);
    TrainerConfig::Training& t = c.training;
    training.Take("total_steps", &t.total_steps);
    training.Take("global_batch_sequences", &t.global_batch_sequences);
    training.Take("micro_batch_sequences", &t.micro_batch_sequences);
    training.Take("learning_rate", &t.learning_rate);
    training.Take("beta1", &t.beta1);
    training.Take("beta2", &t.beta2);
    training.Take("eps", &t.eps);
    training.Take("weight_decay", &t.weight_decay);
    training.Take("warmup_steps", &t.warmup_steps);
    training.Take("schedule", &t.schedule);
    training.Take("min_learning_rate_ratio", &t.min_learning_rate_ratio);
    training.Take("max_grad_norm", &t.max_grad_norm);
    training.Take("seed", &t.seed);
    training.Take("router_aux_loss_coef", &t.router_aux_loss_coef);
    training.Take("deterministic", &t.deterministic);
    training.Take("eval_interval_steps", &t.eval_interval_steps);
    training.Take("activation_memory", &t.activation_memory);
    training.RefuseTheRest();
  }
  if (const json* object = fields.Object("checkpoint")) {
    Fields checkpoint(*object, "checkpoint.", &problems);
    checkpoint.Take("output", &c.checkpoint.output);
    checkpoint.Take("interval_steps", &c.checkpoint.interval_steps);
    checkpoint.RefuseTheRest();
  }
  fields.RefuseTheRest();
  Validate(c, &problems);
  if (!problems.empty()) return absl::InvalidArgumentError(absl::StrJoin(problems, "\n"));
  if (c.expert_load_interval_steps == 0) c.expert_load_interval_steps = 10;
  return c;
}

absl::StatusOr<TrainerConfig> ReadTrainerConfig(const std::string& path) {
  std::ifstream file(path);
  if (!file)
    return absl::NotFoundError(absl::StrFormat("cannot read the trainer's configuration %s", path));
  std::stringstream text;
  text << file.rdbuf();
  absl::StatusOr<TrainerConfig> config = ParseTrainerConfig(text.str());
  if (config.ok()) return config;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s:\n%s", path, std::string(config.status().message())));
}

}  // namespace switchyard::trainer
