// Layout of training_state/optimizer-*.safetensors.
//
// One file for each weight file, with up to three tensors in full shape for each of its tensors
// (copies left out): "exp_avg.<name>" and "exp_avg_sq.<name>" in the optimizer's dtype, and where
// the weight file's dtype does not hold what is trained, beside BF16 "master_remainder.<name>" in
// I16 (weight and remainder are the float32, see element_convert.h), beside F16 "master.<name>" in
// F32. They are whole tensors of the model, so they are read on any mesh.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/checkpoint_files.h"
#include "worker/trainer/checkpoint/checkpoint_map.h"

namespace switchyard::trainer {

enum class StateKind { kExpAvg = 0, kExpAvgSq = 1, kMaster = 2, kMasterRemainder = 3 };
inline constexpr int kNumStateKinds = 4;

// "exp_avg.model.norm.weight".
std::string StateTensorName(StateKind kind, const std::string& tensor);
// "training_state/optimizer-00001-of-00003.safetensors".
std::string StateFileName(int file, int num_files);

struct TrainedAs {
  DataType moments = DataType::kF32;  // F32, or BF16 in the `compact` profile
  bool bfloat16_weights = false;      // weights without remainder: the trained value is a bfloat16
};

// One header for each file of `files`.
absl::StatusOr<std::vector<SafetensorsHeader>> StateHeaders(const CheckpointFiles& files,
                                                            const CheckpointMap& map,
                                                            const TrainedAs& trained);

}  // namespace switchyard::trainer
