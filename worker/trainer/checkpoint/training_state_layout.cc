#include "worker/trainer/checkpoint/training_state_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/checkpoint_publish.h"
#include "common/status_macros.h"

namespace switchyard::trainer {

std::string StateTensorName(StateKind kind, const std::string& tensor) {
  constexpr const char* kPrefix[] = {"exp_avg.", "exp_avg_sq.", "master.", "master_remainder."};
  return absl::StrCat(kPrefix[static_cast<int>(kind)], tensor);
}

std::string StateFileName(int file, int num_files) {
  return absl::StrFormat("%s/optimizer-%05d-of-%05d.safetensors", kTrainingStateDirectory, file + 1,
                         num_files);
}

absl::StatusOr<std::vector<SafetensorsHeader>> StateHeaders(const CheckpointFiles& files,
                                                            const CheckpointMap& map,
                                                            const TrainedAs& trained) {
  std::vector<std::vector<SafetensorsTensor>> tensors(files.files().size());
  for (int i = 0; i < files.num_tensors(); ++i) {
    const bool is_copy = std::any_of(map.copies().begin(), map.copies().end(),
                                     [i](const auto& pair) { return pair.first == i; });
    if (is_copy) continue;
    const SafetensorsTensor& weight = files.tensor(i);
    std::vector<SafetensorsTensor>& file = tensors[files.file_of(i)];
    const auto add = [&](StateKind kind, DataType dtype) {
      file.push_back({StateTensorName(kind, weight.name), dtype, weight.shape, 0, 0});
    };
    add(StateKind::kExpAvg, trained.moments);
    add(StateKind::kExpAvgSq, trained.moments);
    if (weight.dtype == DataType::kF16) add(StateKind::kMaster, DataType::kF32);
    if (weight.dtype == DataType::kBF16 && !trained.bfloat16_weights) {
      add(StateKind::kMasterRemainder, DataType::kI16);
    }
  }
  std::vector<SafetensorsHeader> headers;
  for (std::vector<SafetensorsTensor>& file : tensors) {
    // Wide elements first: then every tensor is aligned to its elements.
    std::stable_sort(file.begin(), file.end(), [](const auto& a, const auto& b) {
      return DataTypeBytes(a.dtype) > DataTypeBytes(b.dtype);
    });
    SWITCHYARD_ASSIGN_OR_RETURN(SafetensorsHeader header, MakeSafetensorsHeader(std::move(file)));
    headers.push_back(std::move(header));
  }
  return headers;
}

}  // namespace switchyard::trainer
