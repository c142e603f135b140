#include "worker/trainer/checkpoint/sidecar_files.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/status_macros.h"

namespace switchyard::trainer {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxSidecarBytes = int64_t{512} << 20;
constexpr char kTemplates[] = "additional_chat_templates";

bool IsSidecar(const std::string& name) {
  if (name.empty() || name[0] == '.' || absl::EndsWith(name, ".index.json")) return false;
  for (const char* suffix : {".json", ".jinja", ".txt", ".model", ".tiktoken"}) {
    if (absl::EndsWith(name, suffix)) return true;
  }
  return false;
}

// Names of regular files in `directory`; empty when it does not exist.
std::vector<std::string> FileNames(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    std::error_code ignored;
    if (it->is_regular_file(ignored)) names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

absl::StatusOr<std::vector<SidecarFile>> ReadSidecarFiles(const std::string& directory) {
  std::vector<std::string> wanted;
  for (const std::string& name : FileNames(directory)) {
    if (IsSidecar(name)) wanted.push_back(name);
  }
  if (std::find(wanted.begin(), wanted.end(), "config.json") == wanted.end()) {
    return absl::NotFoundError(absl::StrFormat("%s has no config.json", directory));
  }
  for (const std::string& name : FileNames(fs::path(directory) / kTemplates)) {
    if (absl::EndsWith(name, ".jinja")) wanted.push_back(std::string(kTemplates) + "/" + name);
  }
  std::vector<SidecarFile> files;
  for (const std::string& name : wanted) {
    SWITCHYARD_ASSIGN_OR_RETURN(
        std::string contents, ReadSmallFile(absl::StrCat(directory, "/", name), kMaxSidecarBytes));
    files.push_back({name, std::move(contents)});
  }
  return files;
}

}  // namespace switchyard::trainer
