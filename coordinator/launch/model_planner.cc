#include "coordinator/launch/model_planner.h"

#include <sys/statvfs.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "common/rpc/violations.h"
#include "coordinator/spec/environment.h"

namespace switchyard::coordinator {
namespace {

int64_t SafetensorsBytes(const std::filesystem::path& directory) {
  int64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".safetensors" && entry.is_regular_file(error)) {
      bytes += static_cast<int64_t>(entry.file_size(error));
    }
  }
  return bytes;
}

// Free bytes of the file system that `path` will be on; -1 when nothing of it exists here.
int64_t FreeBytes(std::filesystem::path path) {
  std::error_code error;
  while (!path.empty() && path != path.root_path() && !std::filesystem::exists(path, error)) {
    path = path.parent_path();
  }
  struct statvfs info {};
  if (path.empty() || ::statvfs(path.c_str(), &info) != 0) return -1;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

}  // namespace

std::vector<rpc::Violation> ModelPlanner::Inspect(const v1::JobSpec& spec) {
  return InspectEnvironment(spec, /*job_uid=*/"").violations;
}

absl::StatusOr<v1::Plan> ModelPlanner::Plan(const v1::JobSpec& spec,
                                            const std::vector<PlannerSlot>& slots,
                                            std::optional<int64_t> train_sequences) {
  absl::StatusOr<ModelShape> model = ReadModelConfig(spec.model());
  if (!model.ok()) return rpc::InvalidArgument({{"model", std::string(model.status().message())}});
  PlanInput input;
  input.spec = spec;
  input.model = *std::move(model);
  input.checkpoint_model_bytes = SafetensorsBytes(spec.model());
  if (input.checkpoint_model_bytes == 0) {
    return rpc::InvalidArgument(
        {{"model", absl::StrCat("\"", spec.model(),
                                "\" has no *.safetensors file; give a Hugging Face "
                                "directory with config.json, weights and tokenizer")}});
  }
  input.train_sequences = train_sequences;
  input.slots = slots;
  input.calibrated = calibrated_;
  if (!train_sequences) input.disk_free_bytes = FreeBytes(spec.checkpoint().output());
  return MakePlan(input);
}

std::string ModelPlanner::TrainerConfig(const TrainerConfigInput& input) {
  return TrainerConfigJson(MakeTrainerConfig(input));
}

}  // namespace switchyard::coordinator
