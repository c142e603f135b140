#include "coordinator/spec/validate.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/model/activation_memory.h"
#include "common/units.h"
#include "coordinator/spec/field_checks.h"

namespace switchyard::coordinator {
namespace {

constexpr int64_t kMaxSpecBytes = kMiB;
constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
constexpr int kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 63;
constexpr int kMinSequenceLength = 8;
constexpr int kMaxSequenceLength = 1 << 20;
constexpr int kMaxRanks = 4096;
constexpr int kMaxGlobalBatch = 1 << 20;
constexpr int64_t kMaxSteps = 1'000'000'000;

constexpr const char* kIdFix =
    "use 1 to 63 of a-z, 0-9 and \"-\", starting with a letter, not ending with \"-\"";

// Fields that this coordinator does not know: from a newer client, or misspelt in a hand-made
// message.
void CheckUnknownFields(const google::protobuf::Message& message, const std::string& path,
                        FieldChecks& checks) {
  const auto* reflection = message.GetReflection();
  const auto& unknown = reflection->GetUnknownFields(message);
  if (!unknown.empty()) {
    checks.Add(
        path.empty() ? "spec" : path,
        absl::StrCat("has a field with number ", unknown.field(0).number(),
                     " that this coordinator does not know; remove it or upgrade the coordinator"));
  }
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection->ListFields(message, &fields);
  for (const auto* field : fields) {
    if (field->is_map() || field->is_repeated() ||
        field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      continue;
    }
    CheckUnknownFields(reflection->GetMessage(message, field),
                       absl::StrCat(path, path.empty() ? "" : ".", field->name()), checks);
  }
}

void CheckIdentity(const v1::JobSpec& spec, FieldChecks& checks) {
  if (spec.name().empty()) {
    checks.Add("name", absl::StrCat("is empty; ", kIdFix));
  } else if (!IsValidJobId(spec.name())) {
    checks.Add("name", absl::StrCat("is ", Quote(spec.name()), "; ", kIdFix));
  }
  if (!spec.project().empty() && !IsValidJobId(spec.project())) {
    checks.Add("project", absl::StrCat("is ", Quote(spec.project()), "; ", kIdFix));
  }
  checks.CheckInteger("priority", spec.priority(), -1000, 1000);
}

void CheckLabels(const v1::JobSpec& spec, FieldChecks& checks) {
  if (spec.labels_size() > kMaxLabels) {
    checks.Add("labels", absl::StrCat("has ", spec.labels_size(), " entries; at most ", kMaxLabels,
                                      " are allowed"));
    return;
  }
  const auto bad = [](const std::string& text) {
    return text.size() > kMaxLabelBytes ||
           std::any_of(text.begin(), text.end(),
                       [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  };
  for (const auto& [key, value] : spec.labels()) {
    if (key.empty() || bad(key)) {
      checks.Add("labels",
                 absl::StrCat("has the key ", Quote(key),
                              "; keys have 1 to 63 characters, none of them a control character"));
    }
    if (bad(value)) {
      checks.Add(
          absl::StrCat("labels[", Quote(key), "]"),
          absl::StrCat("is ", Quote(value),
                       "; values have at most 63 characters, none of them a control character"));
    }
  }
}

void CheckDataFile(const std::string& field, const std::string& value, FieldChecks& checks) {
  if (!checks.CheckPath(field, value, "the absolute path of a .jsonl or .parquet file")) return;
  for (const char* suffix : {".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"}) {
    if (absl::EndsWith(value, suffix)) return;
  }
  checks.Add(field,
             absl::StrCat("is ", Quote(value),
                          "; the file must end with .jsonl, .jsonl.gz, .jsonl.zst or .parquet"));
}

void CheckData(const v1::DataSpec& data, FieldChecks& checks) {
  CheckDataFile("data.train", data.train(), checks);
  if (!data.eval().empty()) CheckDataFile("data.eval", data.eval(), checks);
  if (data.has_sequence_length()) {
    checks.CheckInteger("data.sequence_length", data.sequence_length(), kMinSequenceLength,
                        kMaxSequenceLength);
  }
  checks.CheckInteger("data.max_bad_lines", data.max_bad_lines(), 0, kAny);
}

void CheckLengthOfTraining(const v1::TrainingSpec& training, FieldChecks& checks) {
  if (training.has_epochs() && training.has_steps()) {
    checks.Add("training.steps",
               absl::StrCat("is ", training.steps(), " and training.epochs is ",
                            FormatNumber(training.epochs()), "; set one of them, not both"));
  }
  if (training.has_epochs()) {
    checks.CheckNumber("training.epochs", training.epochs(),
                       {.low = 0, .high = 10000, .low_open = true});
  }
  if (training.has_steps()) checks.CheckInteger("training.steps", training.steps(), 1, kMaxSteps);
}

void CheckBatch(const v1::TrainingSpec& training, FieldChecks& checks) {
  if (training.has_global_batch_sequences()) {
    checks.CheckInteger("training.global_batch_sequences", training.global_batch_sequences(), 1,
                        kMaxGlobalBatch);
  }
  if (!training.has_micro_batch_sequences()) return;
  checks.CheckInteger("training.micro_batch_sequences", training.micro_batch_sequences(), 1,
                      kMaxGlobalBatch);
  if (training.has_global_batch_sequences() && training.global_batch_sequences() >= 1 &&
      training.micro_batch_sequences() > training.global_batch_sequences()) {
    checks.Add("training.micro_batch_sequences",
               absl::StrCat("is ", training.micro_batch_sequences(),
                            "; must be at most training.global_batch_sequences (",
                            training.global_batch_sequences(), ")"));
  }
}

void CheckOptimization(const v1::TrainingSpec& training, FieldChecks& checks) {
  const Range share{.low = 0, .high = 1};
  const Range below_one{.low = 0, .high = 1, .high_open = true};
  const Range above_zero{.low = 0, .high = 1, .low_open = true};
  const auto number = [&](bool present, const char* field, double value, const Range& range) {
    if (present) checks.CheckNumber(absl::StrCat("training.", field), value, range);
  };
  number(training.has_learning_rate(), "learning_rate", training.learning_rate(), above_zero);
  number(training.has_beta1(), "beta1", training.beta1(), below_one);
  number(training.has_beta2(), "beta2", training.beta2(), below_one);
  number(training.has_eps(), "eps", training.eps(), above_zero);
  number(training.has_weight_decay(), "weight_decay", training.weight_decay(), share);
  number(training.has_warmup_ratio(), "warmup_ratio", training.warmup_ratio(), share);
  number(training.has_min_learning_rate_ratio(), "min_learning_rate_ratio",
         training.min_learning_rate_ratio(), share);
  number(training.has_max_grad_norm(), "max_grad_norm", training.max_grad_norm(),
         {.low = 0, .high = 1e9});
  number(training.has_router_aux_loss_coef(), "router_aux_loss_coef",
         training.router_aux_loss_coef(), {.low = 0, .high = 100});
  if (training.has_schedule()) {
    checks.CheckChoice("training.schedule", training.schedule(), {"cosine", "linear", "constant"});
  }
  if (training.has_seed()) checks.CheckInteger("training.seed", training.seed(), 0, kAny);
}

void CheckNumerics(const v1::JobSpec& spec, FieldChecks& checks) {
  const v1::TrainingSpec& training = spec.training();
  if (training.has_optimizer()) {
    checks.CheckChoice("training.optimizer", training.optimizer(), {"exact", "compact"});
  }
  if (training.has_precision()) {
    checks.CheckChoice("training.precision", training.precision(), {"float32", "bfloat16"});
  }
  if (training.has_activation_memory()) {
    checks.CheckChoice("training.activation_memory", training.activation_memory(),
                       ActivationMemoryNames());
  }
  const bool float32 =
      training.has_precision() ? training.precision() == "float32" : spec.mesh().device() == "cpu";
  if (training.optimizer() == "compact" && float32) {
    checks.Add(
        "training.optimizer",
        "is \"compact\"; under float32 weights only \"exact\" exists, set training.precision to "
        "\"bfloat16\" or training.optimizer to \"exact\"");
  }
  if (training.has_deterministic() && !training.deterministic() && spec.mesh().device() == "cpu") {
    checks.Add("training.deterministic",
               "is false; training on cpu is always deterministic, remove it");
  }
}

void CheckEvaluation(const v1::JobSpec& spec, FieldChecks& checks) {
  const int64_t interval = spec.training().eval_interval_steps();
  checks.CheckInteger("training.eval_interval_steps", interval, 0, kMaxSteps);
  if (interval > 0 && spec.data().eval().empty()) {
    checks.Add(
        "training.eval_interval_steps",
        absl::StrCat("is ", interval, " but data.eval is empty; set data.eval or remove it"));
  }
}

void CheckMesh(const v1::MeshSpec& mesh, FieldChecks& checks) {
  if (!mesh.device().empty()) {
    checks.CheckChoice("mesh.device", mesh.device(), {"auto", "cuda", "cpu"});
  }
  checks.CheckInteger("mesh.ranks", mesh.ranks(), 0, kMaxRanks);
  checks.CheckInteger("mesh.expert_parallel", mesh.expert_parallel(), 0, kMaxRanks);
  if (mesh.ranks() > 0 && mesh.expert_parallel() > 0 &&
      mesh.ranks() % mesh.expert_parallel() != 0) {
    checks.Add("mesh.expert_parallel",
               absl::StrCat("is ", mesh.expert_parallel(), "; must divide mesh.ranks (",
                            mesh.ranks(), ")"));
  }
}

void CheckCheckpoint(const v1::JobSpec& spec, bool model_ok, FieldChecks& checks) {
  const v1::CheckpointSpec& checkpoint = spec.checkpoint();
  const std::string& output = checkpoint.output();
  if (checks.CheckPath("checkpoint.output", output,
                       "the absolute path of the job's output directory")) {
    const bool inside = model_ok && absl::StartsWith(output + "/", spec.model() + "/");
    if (output.find_first_not_of('/') == std::string::npos) {
      checks.Add("checkpoint.output", "is \"/\"; name a directory of the job's own");
    } else if (inside) {
      checks.Add("checkpoint.output",
                 absl::StrCat("is ", Quote(output), ", inside the model directory ",
                              Quote(spec.model()), "; name a directory of the job's own"));
    }
  }
  checks.CheckInteger("checkpoint.interval_steps", checkpoint.interval_steps(), 0, kMaxSteps);
  if (checkpoint.has_keep()) checks.CheckInteger("checkpoint.keep", checkpoint.keep(), 1, 1000);
}

}  // namespace

bool IsValidJobId(const std::string& id) {
  if (id.empty() || id.size() > 63 || id.back() == '-') return false;
  if (id[0] < 'a' || id[0] > 'z') return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
}

std::vector<rpc::Violation> ValidateSpec(const v1::JobSpec& spec) {
  FieldChecks checks;
  const auto bytes = static_cast<int64_t>(spec.ByteSizeLong());
  if (bytes > kMaxSpecBytes) {
    // Nothing else is looked at: the answer to a hostile spec must cost no more than reading it.
    checks.Add("spec", absl::StrCat("is ", FormatBytes(static_cast<double>(bytes)),
                                    "; must be at most ", FormatBytes(kMaxSpecBytes)));
    return checks.Take();
  }
  CheckUnknownFields(spec, "", checks);
  CheckIdentity(spec, checks);
  CheckLabels(spec, checks);
  const bool model_ok = checks.CheckPath("model", spec.model(),
                                         "the absolute path of a Hugging Face model directory");
  CheckData(spec.data(), checks);
  CheckLengthOfTraining(spec.training(), checks);
  CheckBatch(spec.training(), checks);
  CheckOptimization(spec.training(), checks);
  CheckNumerics(spec, checks);
  CheckEvaluation(spec, checks);
  CheckMesh(spec.mesh(), checks);
  CheckCheckpoint(spec, model_ok, checks);
  if (spec.restart().has_max_attempts()) {
    checks.CheckInteger("restart.max_attempts", spec.restart().max_attempts(), 1, 1000);
  }
  return checks.Take();
}

}  // namespace switchyard::coordinator
