#include "coordinator/cli/spec_file.h"

#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/violations.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/cli/yaml_to_proto.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;

absl::Status TooLarge(const std::string& source, const std::string& size) {
  return absl::InvalidArgumentError(absl::StrCat(
      source, " is ", size, "; a job spec may have at most ", FormatBytes(kMaxSpecBytes),
      ". Give data by path (data.train), not inside the spec"));
}

// "~" is the shell's business; a path that begins with it would silently become a directory of that
// name.
void MakeAbsolute(const char* field, const std::string& directory, std::string* path,
                  std::vector<rpc::Violation>& violations) {
  if (path->empty()) return;
  if ((*path)[0] == '~') {
    violations.push_back({field, absl::StrCat("is \"", *path, "\"; write the home directory out")});
    return;
  }
  if (!fs::path(*path).is_absolute())
    *path = (fs::path(directory) / *path).lexically_normal().string();
  while (path->size() > 1 && path->back() == '/') path->pop_back();
}

}  // namespace

absl::StatusOr<v1::JobSpec> ParseSpec(const std::string& text, const std::string& directory,
                                      const std::string& source) {
  if (static_cast<int64_t>(text.size()) > kMaxSpecBytes)
    return TooLarge(source, FormatBytes(text.size()));
  v1::JobSpec spec;
  std::vector<rpc::Violation> violations;
  try {
    const std::vector<YAML::Node> documents = YAML::LoadAll(text);
    if (documents.empty() || documents[0].IsNull()) {
      return absl::InvalidArgumentError(absl::StrCat(
          source, " is empty; a spec needs at least model, data and checkpoint.output"));
    }
    if (documents.size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(source, " holds ", documents.size(),
                                                     " documents; submit one job at a time"));
    }
    YamlToProto(documents[0], spec, violations);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(source, ", line ", error.mark.line + 1,
                                                   ", column ", error.mark.column + 1, ": ",
                                                   error.msg));
  }
  MakeAbsolute("model", directory, spec.mutable_model(), violations);
  if (spec.has_data()) {
    MakeAbsolute("data.train", directory, spec.mutable_data()->mutable_train(), violations);
    MakeAbsolute("data.eval", directory, spec.mutable_data()->mutable_eval(), violations);
  }
  if (spec.has_checkpoint()) {
    MakeAbsolute("checkpoint.output", directory, spec.mutable_checkpoint()->mutable_output(),
                 violations);
  }
  if (!violations.empty()) return rpc::InvalidArgument(violations);
  return spec;
}

absl::StatusOr<v1::JobSpec> ReadSpecFile(const std::string& path) {
  std::error_code error;
  std::string text(kMaxSpecBytes + 1, '\0');
  if (path == "-") {
    std::cin.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(std::cin.gcount());
    return ParseSpec(text, fs::current_path(error).string(), "standard input");
  }
  if (fs::is_directory(path, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is a directory; name the job's YAML file"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot read the job spec ", path, ": ", std::strerror(errno)));
  }
  // A file larger than the limit is not read into memory, only measured.
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(file.gcount());
  if (static_cast<int64_t>(text.size()) > kMaxSpecBytes) {
    const auto size = fs::file_size(path, error);
    return TooLarge(
        path, error ? absl::StrCat("more than ", FormatBytes(kMaxSpecBytes)) : FormatBytes(size));
  }
  const fs::path directory = fs::absolute(path, error).parent_path();
  return ParseSpec(text, directory.string(), path);
}

}  // namespace switchyard::coordinator
