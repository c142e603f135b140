#include "worker/agent/host/runtime.h"

#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace switchyard::agent {

RuntimePaths PathsOfRuntime(const std::string& directory) {
  return {absl::StrCat(directory, "/bin/switchyard-trainer"),
          absl::StrCat(directory, "/venv/bin/python"),
          absl::StrCat(directory, "/tools/prepare_data.py")};
}

absl::Status CheckRuntime(const std::string& directory, const std::string& version) {
  constexpr char kFix[] = ": run switchyard-install-runtime, or give --runtime another directory";
  // Written last by the installer.
  const std::string manifest = absl::StrCat(directory, "/runtime.json");
  std::ifstream in(manifest);
  if (!in)
    return absl::NotFoundError(absl::StrCat("--runtime ", directory, " has no runtime.json", kFix));
  const auto document = nlohmann::json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("version") || !document["version"].is_string()) {
    return absl::NotFoundError(absl::StrCat(manifest, " names no version", kFix));
  }
  const std::string installed = document["version"];
  if (installed != version) {
    return absl::FailedPreconditionError(absl::StrCat("--runtime ", directory, " is of version ",
                                                      installed, ", this agent of ", version,
                                                      "; they must be of one release", kFix));
  }
  const RuntimePaths paths = PathsOfRuntime(directory);
  for (const std::string& path : {paths.trainer, paths.python}) {
    if (access(path.c_str(), X_OK) != 0) {
      return absl::NotFoundError(
          absl::StrCat(path, " does not exist or may not be executed", kFix));
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard::agent
