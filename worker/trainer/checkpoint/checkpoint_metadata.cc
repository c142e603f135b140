#include "worker/trainer/checkpoint/checkpoint_metadata.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "common/checkpoint_publish.h"
#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;

constexpr int kVersion = 1;
constexpr int64_t kMaxStateBytes = int64_t{16} << 20;

// Takes fields out of a JSON object; the first wrong one is kept as the error.
class FieldReader {
 public:
  FieldReader(const json& object, const std::string& path) : object_(object), path_(path) {}

  void Take(const char* key, int64_t* out) {
    const json* field = Field(key);
    if (field == nullptr) return;
    if (!field->is_number_integer()) return Fail(key, "an integer");
    *out = field->get<int64_t>();
  }
  void Take(const char* key, int* out) {
    int64_t value = *out;
    Take(key, &value);
    if (value < 0 || value > std::numeric_limits<int>::max()) return Fail(key, "in range");
    *out = static_cast<int>(value);
  }
  void Take(const char* key, std::string* out) {
    const json* field = Field(key);
    if (field == nullptr) return;
    if (!field->is_string()) return Fail(key, "a string");
    *out = field->get<std::string>();
  }
  void Take(const char* key, bool* out) {
    const json* field = Field(key);
    if (field == nullptr) return;
    if (!field->is_boolean()) return Fail(key, "true or false");
    *out = field->get<bool>();
  }
  // null is NaN.
  void Take(const char* key, double* out) {
    const json* field = Field(key);
    if (field == nullptr) return;
    if (!field->is_null() && !field->is_number()) return Fail(key, "a number or null");
    *out = field->is_null() ? std::numeric_limits<double>::quiet_NaN() : field->get<double>();
  }
  const absl::Status& status() const { return status_; }

 private:
  const json* Field(const char* key) {
    const auto it = object_.find(key);
    if (it != object_.end()) return &*it;
    Fail(key, "there");
    return nullptr;
  }
  void Fail(const char* key, const char* what) {
    if (status_.ok())
      status_ = absl::DataLossError(absl::StrFormat("%s: %s must be %s", path_, key, what));
  }

  const json& object_;
  const std::string& path_;
  absl::Status status_;
};

}  // namespace

std::string MetadataJson(const CheckpointMetadata& m) {
  const double loss = m.progress.initial_eval_loss;
  const nlohmann::ordered_json state = {
      {"version", kVersion},
      {"job", m.job},
      {"job_uid", m.job_uid},
      {"epoch", m.epoch},
      {"final", m.final},
      {"world_size", m.world_size},
      {"expert_parallel", m.expert_parallel},
      {"precision", m.precision},
      {"optimizer", m.optimizer},
      {"step", m.progress.step},
      {"skipped_steps", m.progress.skipped_steps},
      {"consecutive_skips", m.progress.consecutive_skips},
      {"tokens", m.progress.tokens},
      {"initial_eval_loss", std::isfinite(loss) ? json(loss) : json()},
      {"adam_step", m.adam_step},
      {"next_sequence", m.next_sequence},
      {"seed", m.seed},
      {"train_fingerprint", m.train_fingerprint},
      {"plan_json", m.plan_json},
  };
  return state.dump(1, ' ', false, json::error_handler_t::replace) + "\n";
}

absl::StatusOr<CheckpointMetadata> ParseMetadata(const std::string& text, const std::string& path) {
  const json state = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!state.is_object())
    return absl::DataLossError(absl::StrFormat("%s: not a JSON object", path));
  CheckpointMetadata m;
  FieldReader reader(state, path);
  int version = 0;
  reader.Take("version", &version);
  if (reader.status().ok() && version != kVersion) {
    return absl::DataLossError(absl::StrFormat(
        "%s: version %d is not %d, the one this program reads", path, version, kVersion));
  }
  reader.Take("job", &m.job);
  reader.Take("job_uid", &m.job_uid);
  reader.Take("epoch", &m.epoch);
  reader.Take("final", &m.final);
  reader.Take("world_size", &m.world_size);
  reader.Take("expert_parallel", &m.expert_parallel);
  reader.Take("precision", &m.precision);
  reader.Take("optimizer", &m.optimizer);
  reader.Take("step", &m.progress.step);
  reader.Take("skipped_steps", &m.progress.skipped_steps);
  reader.Take("consecutive_skips", &m.progress.consecutive_skips);
  reader.Take("tokens", &m.progress.tokens);
  reader.Take("initial_eval_loss", &m.progress.initial_eval_loss);
  reader.Take("adam_step", &m.adam_step);
  reader.Take("next_sequence", &m.next_sequence);
  reader.Take("seed", &m.seed);
  reader.Take("train_fingerprint", &m.train_fingerprint);
  reader.Take("plan_json", &m.plan_json);
  if (!reader.status().ok()) return reader.status();
  return m;
}

absl::StatusOr<CheckpointMetadata> ReadMetadata(const std::string& directory) {
  const std::string path = directory + "/" + kTrainingStateFile;
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxStateBytes));
  return ParseMetadata(text, path);
}

}  // namespace switchyard::trainer
