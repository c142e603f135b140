#include "worker/trainer/checkpoint/checkpoint_files.h"

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_format.h"
#include "common/durable_file.h"
#include "common/status_macros.h"
#include "worker/trainer/checkpoint/problem_list.h"

namespace switchyard::trainer {
namespace {

using nlohmann::json;
using WeightMap = std::map<std::string, std::string>;  // tensor to file

constexpr int64_t kMaxIndexBytes = int64_t{256} << 20;

absl::StatusOr<WeightMap> ParseWeightMap(const std::string& text, const std::string& path) {
  const json index = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto found = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || found == index.end() || !found->is_object() || found->empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: needs an object \"weight_map\" from tensor to file names", path));
  }
  WeightMap map;
  for (const auto& [tensor, file] : found->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find('/') != std::string::npos || name[0] == '.') {
      return absl::InvalidArgumentError(absl::StrFormat(
          "%s: file of tensor \"%s\" must be a plain file name in the same directory", path,
          tensor));
    }
    map[tensor] = name;
  }
  return map;
}

}  // namespace

absl::StatusOr<CheckpointFiles> CheckpointFiles::Open(const std::string& directory) {
  namespace fs = std::filesystem;
  CheckpointFiles result;
  result.directory_ = directory;
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    return absl::NotFoundError(absl::StrFormat("model directory %s does not exist", directory));
  }
  if (fs::exists(fs::path(directory) / kSingleWeightFile, error)) {
    SWITCHYARD_RETURN_IF_ERROR(result.AddFile(kSingleWeightFile));
    return result;
  }
  const std::string index_path = directory + "/" + kWeightIndexFile;
  if (!fs::exists(index_path, error)) {
    return absl::NotFoundError(absl::StrFormat(
        "%s has neither %s nor %s; weights in other formats must be converted to safetensors first",
        directory, kSingleWeightFile, kWeightIndexFile));
  }
  SWITCHYARD_ASSIGN_OR_RETURN(result.index_text_, ReadSmallFile(index_path, kMaxIndexBytes));
  SWITCHYARD_ASSIGN_OR_RETURN(const WeightMap weight_map,
                              ParseWeightMap(result.index_text_, index_path));
  ProblemList problems;
  std::set<std::string> names;
  for (const auto& [tensor, file] : weight_map) names.insert(file);
  for (const std::string& name : names) {
    if (!fs::exists(fs::path(directory) / name, error)) problems.Add("missing file", name);
  }
  if (!problems.empty()) {
    return absl::NotFoundError(absl::StrFormat("%s: %s", index_path, problems.Text()));
  }
  for (const std::string& name : names) SWITCHYARD_RETURN_IF_ERROR(result.AddFile(name));
  for (const auto& [tensor, file] : weight_map) {
    const int at = result.Find(tensor);
    if (at < 0 || result.file_names_[result.file_of(at)] != file) {
      problems.Add("tensor not in the file that the index names",
                   absl::StrCat(tensor, " in ", file));
    }
  }
  for (int i = 0; i < result.num_tensors(); ++i) {
    if (!weight_map.contains(result.tensor(i).name)) {
      problems.Add("tensor not in the index", absl::StrCat(result.tensor(i).name, " of ",
                                                           result.file_names_[result.file_of(i)]));
    }
  }
  if (!problems.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s", index_path, problems.Text()));
  }
  return result;
}

absl::Status CheckpointFiles::AddFile(const std::string& name) {
  SWITCHYARD_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(directory_ + "/" + name));
  const int file_index = static_cast<int>(files_.size());
  const auto& tensors = file.header().tensors;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto [it, inserted] = by_name_.emplace(tensors[i].name, num_tensors());
    if (!inserted) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: tensor \"%s\" is in %s and in %s",
                                                        directory_, tensors[i].name,
                                                        file_names_[file_of(it->second)], name));
    }
    tensors_.push_back({file_index, static_cast<int>(i)});
  }
  files_.push_back(std::move(file));
  file_names_.push_back(name);
  return absl::OkStatus();
}

int CheckpointFiles::Find(absl::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? -1 : it->second;
}

}  // namespace switchyard::trainer
