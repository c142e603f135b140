#include "coordinator/cli/spec_file.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/violations.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "common/utf8.h"
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

// 1-based line of the first byte that is no UTF-8, 0 when there is none. A message with such a text
// would be dropped whole by who receives it. Zero bytes, of which YAML has none, are foreign too:
// yaml-cpp takes them for UTF-16 and makes halves of characters out of them.
int LineOfForeignBytes(const std::string& text) {
  int line = 1;
  for (size_t i = 0; i < text.size();) {
    const size_t length = Utf8SequenceLength(text, i);
    if (length == 0 || text[i] == '\0') return line;
    line += text[i] == '\n';
    i += length;
  }
  return 0;
}

// Listens for anything but an empty document, and where it begins.
class ContentFinder final : public YAML::EventHandler {
 public:
  // 1-based line of the content, -1 when there is none, and where an empty document is.
  int line() const { return line_; }
  int empty_line() const { return empty_line_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { empty_line_ = mark.line + 1; }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { Found(mark); }
  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                const std::string&) override {
    Found(mark);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    Found(mark);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    Found(mark);
  }
  void OnMapEnd() override {}

 private:
  void Found(const YAML::Mark& mark) {
    if (line_ < 0) line_ = mark.line + 1;
  }
  int line_ = -1;
  int empty_line_ = -1;
};

// 1-based line of what stands behind the first document; -1 when nothing does. Not by
// YAML::LoadAll: it never comes back from a stray "}".
int LineOfMore(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  ContentFinder first, more, again;
  if (!parser.HandleNextDocument(first) || !parser.HandleNextDocument(more)) return -1;
  if (more.line() > 0) return more.line();
  // One empty document is a "---" at the end; a bracket or comma too many is one again and again.
  return parser.HandleNextDocument(again) ? more.empty_line() : -1;
}

}  // namespace

absl::StatusOr<v1::JobSpec> ParseSpec(const std::string& text, const std::string& directory,
                                      const std::string& source) {
  if (static_cast<int64_t>(text.size()) > kMaxSpecBytes)
    return TooLarge(source, FormatBytes(text.size()));
  if (const int line = LineOfForeignBytes(text); line > 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ", line ", line, ": is not UTF-8; save the file as UTF-8"));
  }
  v1::JobSpec spec;
  std::vector<rpc::Violation> violations;
  try {
    const YAML::Node document = YAML::Load(text);
    if (!document || document.IsNull()) {
      return absl::InvalidArgumentError(absl::StrCat(
          source, " is empty; a spec needs at least model, data and checkpoint.output"));
    }
    if (const int line = LineOfMore(text); line > 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(source, ", line ", line,
                       ": the spec ends before this, by its brackets or by \"---\"; submit one job "
                       "at a time"));
    }
    YamlToProto(document, spec, violations);
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
