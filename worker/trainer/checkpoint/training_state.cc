#include "worker/trainer/checkpoint/training_state.h"

#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "worker/trainer/checkpoint/checkpoint_map.h"
#include "worker/trainer/checkpoint/training_state_layout.h"
#include "worker/trainer/checkpoint/value_loader.h"

namespace switchyard::trainer {
namespace {

// Tensors of the state files by kind and weight tensor.
class StateFiles {
 public:
  static absl::StatusOr<StateFiles> Open(const CheckpointFiles& weights, const CheckpointMap& map,
                                         const TrainedAs& trained) {
    StateFiles result;
    const int num_files = static_cast<int>(weights.files().size());
    SWITCHYARD_ASSIGN_OR_RETURN(const std::vector<SafetensorsHeader> expected,
                                StateHeaders(weights, map, trained));
    for (int i = 0; i < num_files; ++i) {
      SWITCHYARD_ASSIGN_OR_RETURN(
          SafetensorsFile file,
          SafetensorsFile::Open(weights.directory() + "/" + StateFileName(i, num_files)));
      if (file.header().raw != expected[i].raw) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s: tensors are not those of a %s optimizer of this model",
                            file.path(), trained.moments == DataType::kBF16 ? "compact" : "exact"));
      }
      result.files_.push_back(std::move(file));
    }
    absl::flat_hash_map<std::string, TensorSource> by_name;
    for (const SafetensorsFile& file : result.files_) {
      for (const SafetensorsTensor& tensor : file.header().tensors)
        by_name[tensor.name] = {&file, &tensor};
    }
    for (int kind = 0; kind < kNumStateKinds; ++kind) {
      for (int i = 0; i < weights.num_tensors(); ++i) {
        const auto found =
            by_name.find(StateTensorName(static_cast<StateKind>(kind), weights.tensor(i).name));
        result.sources_[kind].push_back(found == by_name.end() ? TensorSource{} : found->second);
      }
    }
    return result;
  }

  const std::vector<TensorSource>& sources(StateKind kind) const {
    return sources_[static_cast<int>(kind)];
  }

 private:
  std::vector<SafetensorsFile> files_;
  std::vector<TensorSource> sources_[kNumStateKinds];
};

}  // namespace

absl::StatusOr<CheckpointMetadata> LoadTrainingState(const std::string& directory,
                                                     const ParameterRegistry& registry,
                                                     OptimizerState& state) {
  SWITCHYARD_CHECK(state.shards.size() == registry.blocks().size(), "one optimizer shard a block");
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointMetadata metadata, ReadMetadata(directory));
  const bool compact = state.shards.front().exp_avg.scalar_type() == at::kBFloat16;
  const char* wanted = compact ? "compact" : "exact";
  if (metadata.optimizer != wanted) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s was written with optimizer \"%s\", the job says \"%s\"; resume with the same optimizer",
        directory, metadata.optimizer, wanted));
  }
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointFiles files, CheckpointFiles::Open(directory));
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointMap map, CheckpointMap::Create(registry, files));
  const TrainedAs trained{compact ? DataType::kBF16 : DataType::kF32,
                          compact && metadata.precision == "bfloat16"};
  SWITCHYARD_ASSIGN_OR_RETURN(const StateFiles state_files, StateFiles::Open(files, map, trained));

  std::vector<ValueSource> values;
  for (int i = 0; i < files.num_tensors(); ++i) {
    const TensorSource& master = state_files.sources(StateKind::kMaster)[i];
    const TensorSource weight = {&files.files()[files.file_of(i)], &files.tensor(i)};
    values.push_back({master.file != nullptr ? master : weight,
                      state_files.sources(StateKind::kMasterRemainder)[i]});
  }
  SWITCHYARD_RETURN_IF_ERROR(LoadValues(values, map, registry, &state));
  for (const OptimizerShard& shard : state.shards) {
    SWITCHYARD_RETURN_IF_ERROR(LoadShard(state_files.sources(StateKind::kExpAvg), map, registry,
                                         shard.block, shard.exp_avg));
    SWITCHYARD_RETURN_IF_ERROR(LoadShard(state_files.sources(StateKind::kExpAvgSq), map, registry,
                                         shard.block, shard.exp_avg_sq));
  }
  state.adam_step = metadata.adam_step;
  return metadata;
}

}  // namespace switchyard::trainer
