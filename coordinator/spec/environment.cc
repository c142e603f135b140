#include "coordinator/spec/environment.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "coordinator/spec/field_checks.h"
#include "coordinator/spec/model_files.h"
#include "coordinator/spec/output_directory.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;

void CheckModel(const v1::JobSpec& spec, Environment& environment, FieldChecks& checks) {
  if (spec.model().empty()) return;
  std::error_code error;
  if (!fs::is_directory(spec.model(), error)) {
    checks.Add("model", absl::StrCat("is ", Quote(spec.model()), "; there is no such directory"));
    return;
  }
  auto model = ReadModelConfig(spec.model());
  if (model.ok()) {
    environment.model = *std::move(model);
  } else {
    checks.Add("model", absl::StrCat("is ", Quote(spec.model()), "; ", model.status().message()));
  }
  const ModelFiles files = InspectModelFiles(spec.model());
  environment.model_bytes = files.bytes;
  for (const std::string& problem : files.problems) {
    checks.Add("model", absl::StrCat("is ", Quote(spec.model()), "; ", problem));
  }
}

void CheckAgainstModel(const v1::JobSpec& spec, const ModelShape& model, FieldChecks& checks) {
  // The default of sequence_length counts too: the user must hear that it does not suit the model.
  const bool unset = !spec.data().has_sequence_length();
  const int64_t length = unset ? 4096 : spec.data().sequence_length();
  if (length > model.max_position_embeddings) {
    checks.Add("data.sequence_length",
               absl::StrCat("is ", length, unset ? " by default" : "",
                            "; must be at most the model's max_position_embeddings (",
                            model.max_position_embeddings, ")"));
  }
  const int expert_parallel = spec.mesh().expert_parallel();
  if (expert_parallel <= 0) return;
  if (model.num_experts == 0 && expert_parallel != 1) {
    checks.Add("mesh.expert_parallel",
               absl::StrCat("is ", expert_parallel, "; must be 1, the model has no experts"));
  } else if (model.num_experts > 0 && model.num_experts % expert_parallel != 0) {
    checks.Add("mesh.expert_parallel",
               absl::StrCat("is ", expert_parallel, "; must divide the model's number of experts (",
                            model.num_experts, ")"));
  }
}

void CheckDataFile(const std::string& field, const std::string& path, FieldChecks& checks) {
  if (path.empty()) return;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) {
    checks.Add(field, absl::StrCat("is ", Quote(path), "; there is no such file"));
  } else if (!fs::is_regular_file(status)) {
    checks.Add(field, absl::StrCat("is ", Quote(path), "; it is not a file"));
  } else if (::access(path.c_str(), R_OK) != 0) {
    checks.Add(field, absl::StrCat("is ", Quote(path), "; it cannot be read (",
                                   std::strerror(errno), ")"));
  } else if (fs::file_size(path, error) == 0) {
    checks.Add(field, absl::StrCat("is ", Quote(path), "; the file is empty"));
  }
}

}  // namespace

Environment InspectEnvironment(const v1::JobSpec& spec, const std::string& job_uid) {
  Environment environment;
  FieldChecks checks;
  CheckModel(spec, environment, checks);
  if (environment.model) CheckAgainstModel(spec, *environment.model, checks);
  CheckDataFile("data.train", spec.data().train(), checks);
  CheckDataFile("data.eval", spec.data().eval(), checks);

  const std::string& output = spec.checkpoint().output();
  if (output.empty()) {
    // ValidateSpec asks for it.
  } else if (!spec.model().empty() && IsInside(ResolvedPath(output), ResolvedPath(spec.model()))) {
    checks.Add("checkpoint.output",
               absl::StrCat("is ", Quote(output), ", inside the model directory ",
                            Quote(spec.model()), "; name a directory of the job's own"));
  } else {
    const OutputDirectory directory = InspectOutputDirectory(output, job_uid);
    environment.disk_free_bytes = directory.free_bytes;
    if (!directory.problem.empty()) {
      checks.Add("checkpoint.output", absl::StrCat("is ", Quote(output), "; ", directory.problem));
    }
  }
  environment.violations = checks.Take();
  return environment;
}

}  // namespace switchyard::coordinator
