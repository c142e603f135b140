#include "worker/trainer/checkpoint/model_io.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "worker/trainer/checkpoint/checkpoint_map.h"
#include "worker/trainer/checkpoint/value_loader.h"

namespace switchyard::trainer {
namespace {

// Tied weights that the checkpoint holds twice must be equal, or one of them would silently be
// lost.
absl::Status CheckCopies(const CheckpointFiles& files, const CheckpointMap& map) {
  constexpr int64_t kChunk = int64_t{1} << 20;
  for (const auto& [copy, original] : map.copies()) {
    const SafetensorsTensor& a = files.tensor(copy);
    const SafetensorsTensor& b = files.tensor(original);
    const int64_t width = DataTypeBytes(a.dtype);
    std::vector<char> bytes_a(static_cast<size_t>(kChunk * width));
    std::vector<char> bytes_b(bytes_a.size());
    for (int64_t first = 0; first < a.numel(); first += kChunk) {
      const int64_t count = std::min(kChunk, a.numel() - first);
      SWITCHYARD_RETURN_IF_ERROR(
          files.files()[files.file_of(copy)].Read(a, first, count, bytes_a.data()));
      SWITCHYARD_RETURN_IF_ERROR(
          files.files()[files.file_of(original)].Read(b, first, count, bytes_b.data()));
      if (std::memcmp(bytes_a.data(), bytes_b.data(), static_cast<size_t>(count * width)) != 0) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s: config.json ties %s to %s, but their values differ; set "
                            "tie_word_embeddings to false or "
                            "remove %s",
                            files.directory(), a.name, b.name, a.name));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadModel(const std::string& directory, const ParameterRegistry& registry,
                       OptimizerState* state) {
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointFiles files, CheckpointFiles::Open(directory));
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointMap map, CheckpointMap::Create(registry, files));
  SWITCHYARD_RETURN_IF_ERROR(CheckCopies(files, map));
  std::vector<ValueSource> sources;
  for (int i = 0; i < files.num_tensors(); ++i) {
    sources.push_back({{&files.files()[files.file_of(i)], &files.tensor(i)}, {}});
  }
  return LoadValues(sources, map, registry, state);
}

}  // namespace switchyard::trainer
