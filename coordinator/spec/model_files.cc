#include "coordinator/spec/model_files.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/units.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr char kIndex[] = "model.safetensors.index.json";
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the format's reference reader has it
constexpr size_t kMaxProblems = 8;

struct TensorRange {
  std::string name;
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Empty when the ranges of a header fill its `data_bytes`, as the format demands.
std::string CheckRanges(const std::string& file, std::vector<TensorRange> ranges,
                        uint64_t data_bytes) {
  std::sort(ranges.begin(), ranges.end(), [](const TensorRange& a, const TensorRange& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  uint64_t at = 0;
  for (const TensorRange& range : ranges) {
    if (range.begin < at) {
      return absl::StrCat(file, " is damaged: tensor \"", range.name,
                          "\" overlaps the one before it");
    }
    if (range.begin > at) {
      return absl::StrCat(file, " is damaged: bytes ", at, " to ", range.begin,
                          " belong to no tensor");
    }
    at = range.end;
  }
  if (at > data_bytes) {
    return absl::StrCat(file, " is truncated: its header describes ",
                        FormatGrouped(static_cast<int64_t>(at)), " bytes of tensors, the file has ",
                        FormatGrouped(static_cast<int64_t>(data_bytes)));
  }
  if (at < data_bytes) {
    return absl::StrCat(file, " is damaged: ", data_bytes - at,
                        " bytes at its end belong to no tensor");
  }
  return "";
}

std::string CheckHeader(const std::string& file, const std::string& text, uint64_t data_bytes) {
  const Json header = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object())
    return absl::StrCat(file, " is damaged: its header is not a JSON object");
  std::vector<TensorRange> ranges;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const bool good = entry.is_object() && entry.contains("data_offsets") &&
                      entry["data_offsets"].is_array() && entry["data_offsets"].size() == 2 &&
                      entry["data_offsets"][0].is_number_unsigned() &&
                      entry["data_offsets"][1].is_number_unsigned() &&
                      entry["data_offsets"][0] <= entry["data_offsets"][1];
    if (!good)
      return absl::StrCat(file, " is damaged: tensor \"", name, "\" has no valid data_offsets");
    ranges.push_back({name, entry["data_offsets"][0], entry["data_offsets"][1]});
  }
  return CheckRanges(file, std::move(ranges), data_bytes);
}

std::string CheckSafetensors(const fs::path& path) {
  const std::string file = path.filename();
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  std::ifstream stream(path, std::ios::binary);
  if (error || !stream) return absl::StrCat(file, " cannot be read");
  unsigned char prefix[8];
  if (size < sizeof(prefix) || !stream.read(reinterpret_cast<char*>(prefix), sizeof(prefix))) {
    return absl::StrCat(file, " is truncated: it has ", size,
                        " bytes, a safetensors file at least 8");
  }
  uint64_t header_bytes = 0;
  for (int i = 7; i >= 0; --i) header_bytes = header_bytes << 8 | prefix[i];
  if (header_bytes > kMaxHeaderBytes) {
    return absl::StrCat(file, " is no safetensors file: its first 8 bytes claim a header of ",
                        header_bytes, " bytes");
  }
  if (header_bytes > size - sizeof(prefix)) {
    return absl::StrCat(file, " is truncated: its header has ", header_bytes, " bytes, the file ",
                        size);
  }
  std::string text(header_bytes, '\0');
  if (!stream.read(text.data(), static_cast<std::streamsize>(header_bytes))) {
    return absl::StrCat(file, " cannot be read");
  }
  return CheckHeader(file, text, size - sizeof(prefix) - header_bytes);
}

// Names of the shards that the index lists; a problem when it cannot be read.
std::set<std::string> ShardsOfIndex(const fs::path& path, std::vector<std::string>& problems) {
  std::ifstream stream(path);
  const Json index = Json::parse(stream, nullptr, /*allow_exceptions=*/false);
  std::set<std::string> shards;
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    problems.push_back(absl::StrCat(kIndex, " is damaged: it has no object \"weight_map\""));
    return shards;
  }
  for (const auto& [tensor, file] : index["weight_map"].items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || name.find('/') != std::string::npos) {
      problems.push_back(absl::StrCat(kIndex, " is damaged: the file of tensor \"", tensor,
                                      "\" is not a plain file name"));
      return shards;
    }
    shards.insert(name);
  }
  return shards;
}

bool Has(const fs::path& directory, const char* name) {
  std::error_code error;
  return fs::is_regular_file(directory / name, error);
}

bool HasTokenizer(const fs::path& directory) {
  return Has(directory, "tokenizer.json") || Has(directory, "tokenizer.model") ||
         (Has(directory, "vocab.json") && Has(directory, "merges.txt"));
}

}  // namespace

ModelFiles InspectModelFiles(const std::string& directory) {
  ModelFiles files;
  std::error_code error;
  std::set<std::string> shards;
  if (Has(directory, kIndex)) {
    shards = ShardsOfIndex(fs::path(directory) / kIndex, files.problems);
  } else {
    for (const auto& entry : fs::directory_iterator(directory, error)) {
      if (entry.path().extension() == ".safetensors") shards.insert(entry.path().filename());
    }
    if (error)
      files.problems.push_back(absl::StrCat("it cannot be listed (", error.message(), ")"));
  }
  if (shards.empty() && files.problems.empty()) {
    files.problems.push_back("it has no *.safetensors file");
  }
  for (const std::string& shard : shards) {
    if (files.problems.size() == kMaxProblems) break;
    const fs::path path = fs::path(directory) / shard;
    if (!fs::is_regular_file(path, error)) {
      files.problems.push_back(absl::StrCat(kIndex, " names ", shard, ", which is missing"));
      continue;
    }
    files.bytes += static_cast<int64_t>(fs::file_size(path, error));
    if (std::string problem = CheckSafetensors(path); !problem.empty()) {
      files.problems.push_back(std::move(problem));
    }
  }
  if (!HasTokenizer(directory)) {
    files.problems.push_back(
        "it has no tokenizer.json (or tokenizer.model, or vocab.json with merges.txt)");
  }
  return files;
}

}  // namespace switchyard::coordinator
