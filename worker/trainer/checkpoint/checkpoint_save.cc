#include "worker/trainer/checkpoint/checkpoint_save.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/checkpoint_publish.h"
#include "common/durable_file.h"
#include "common/status_macros.h"
#include "worker/trainer/checkpoint/checkpoint_verify.h"
#include "worker/trainer/checkpoint/element_convert.h"
#include "worker/trainer/checkpoint/parallel.h"
#include "worker/trainer/checkpoint/sidecar_files.h"
#include "worker/trainer/checkpoint/training_state_layout.h"

namespace switchyard::trainer {
namespace {

constexpr int64_t kChunk = int64_t{1} << 20;  // elements converted at once

// What a run of elements of this rank's shard is written as.
enum class Source { kWeight, kMaster, kMasterRemainder, kExpAvg, kExpAvgSq };

struct WriteOp {
  int file = 0;          // weight files first, then state files
  int64_t position = 0;  // in the file
  Source source = Source::kWeight;
  DataType dtype = DataType::kF32;
  int tensor = 0;  // of the source checkpoint, for errors
  int block = 0;
  int64_t shard_offset = 0;
  int64_t count = 0;
};

// Writes runs of elements of one file after the other: one a thread.
class FileWriter {
 public:
  FileWriter(const ParameterRegistry& registry, const OptimizerState& state,
             const CheckpointFiles& files, const std::string& stage)
      : registry_(registry), state_(state), files_(files), writer_(stage) {}

  // All of `ops`, which are of the file `name`, in the order of its bytes.
  absl::Status Write(const std::string& name, const WriteOp* begin, const WriteOp* end) {
    SWITCHYARD_RETURN_IF_ERROR(writer_.Open(name));
    for (const WriteOp* op = begin; op != end; ++op) SWITCHYARD_RETURN_IF_ERROR(Execute(name, *op));
    return writer_.Close();
  }
  const PieceWriter& writer() const { return writer_; }

 private:
  bool float_weights() const { return registry_.values().scalar_type() == at::kFloat; }

  // On CPU the elements themselves; else a copy that lasts until the next but one call.
  at::Tensor OnHost(const at::Tensor& flat, int64_t offset, int64_t count) {
    const at::Tensor part = flat.narrow(0, offset, count);
    if (part.is_cpu()) return part;
    std::swap(host_[0], host_[1]);
    if (!host_[0].defined()) host_[0] = at::empty({kChunk * 4}, at::kByte);
    at::Tensor copy = host_[0].view(part.scalar_type()).narrow(0, 0, count);
    copy.copy_(part);
    return copy;
  }

  absl::Status Execute(const std::string& name, const WriteOp& op) {
    const int64_t width = DataTypeBytes(op.dtype);
    for (int64_t done = 0; done < op.count; done += kChunk) {
      const int64_t count = std::min(kChunk, op.count - done);
      const int64_t offset = op.shard_offset + done;
      const int64_t position = op.position + done * width;
      if (const at::Tensor stored = Stored(op); stored.defined()) {
        const at::Tensor host = OnHost(stored, offset, count);
        SWITCHYARD_RETURN_IF_ERROR(writer_.Write(host.data_ptr(), count * width, position));
        continue;
      }
      const ParameterBlock& block = registry_.blocks()[op.block];
      const at::Tensor host =
          OnHost(registry_.BlockValues(op.block),
                 registry_.shard_index(block) * block.shard_numel() + offset, count);
      if (op.source == Source::kMasterRemainder) {  // of float32 weights
        weight_.resize(static_cast<size_t>(count));
        remainder_.resize(static_cast<size_t>(count));
        SplitMaster(host.data_ptr<float>(), weight_.data(), remainder_.data(), count);
        SWITCHYARD_RETURN_IF_ERROR(writer_.Write(remainder_.data(), count * width, position));
        continue;
      }
      if (op.dtype == (float_weights() ? DataType::kF32 : DataType::kBF16)) {
        SWITCHYARD_RETURN_IF_ERROR(writer_.Write(host.data_ptr(), count * width, position));
        continue;
      }
      Master(op, host, offset, count);
      bytes_.resize(static_cast<size_t>(count * width));
      if (absl::Status status = FromFloat(master_.data(), op.dtype, bytes_.data(), count);
          !status.ok()) {
        return absl::Status(status.code(), absl::StrCat("tensor \"", files_.tensor(op.tensor).name,
                                                        "\" of ", name, ": ", status.message()));
      }
      SWITCHYARD_RETURN_IF_ERROR(writer_.Write(bytes_.data(), count * width, position));
    }
    return absl::OkStatus();
  }

  // The tensor of the optimizer's shard that is written as it is; undefined when there is none.
  at::Tensor Stored(const WriteOp& op) const {
    const OptimizerShard& shard = state_.shards[op.block];
    if (op.source == Source::kExpAvg) return shard.exp_avg;
    if (op.source == Source::kExpAvgSq) return shard.exp_avg_sq;
    if (op.source == Source::kMasterRemainder) return shard.master_remainder;
    return {};
  }

  // The trained values in full precision into master_.
  void Master(const WriteOp& op, const at::Tensor& weights, int64_t offset, int64_t count) {
    master_.resize(static_cast<size_t>(count));
    const at::Tensor& remainder = state_.shards[op.block].master_remainder;
    if (remainder.defined()) {
      const at::Tensor host = OnHost(remainder, offset, count);
      JoinMaster(static_cast<const uint16_t*>(weights.data_ptr()), host.data_ptr<int16_t>(),
                 master_.data(), count);
    } else {
      ToFloat(float_weights() ? DataType::kF32 : DataType::kBF16, weights.data_ptr(),
              master_.data(), count);
    }
  }

  const ParameterRegistry& registry_;
  const OptimizerState& state_;
  const CheckpointFiles& files_;
  PieceWriter writer_;
  at::Tensor host_[2];
  std::vector<float> master_;
  std::vector<uint16_t> weight_;
  std::vector<int16_t> remainder_;
  std::vector<char> bytes_;
};

class Saver {
 public:
  Saver(const SaveRequest& request, const ParameterRegistry& registry, const OptimizerState& state,
        const CheckpointFiles& files, const CheckpointMap& map)
      : request_(request),
        registry_(registry),
        state_(state),
        files_(files),
        map_(map),
        writer_(request.stage) {}

  absl::StatusOr<int64_t> Run() {
    SWITCHYARD_RETURN_IF_ERROR(
        MakeDirectories(absl::StrCat(request_.stage, "/", kTrainingStateDirectory)));
    SWITCHYARD_ASSIGN_OR_RETURN(state_headers_, StateHeaders(files_, map_, Trained()));
    std::vector<WriteOp> ops = Plan();
    int64_t planned = 0;
    for (const WriteOp& op : ops) planned += op.count * DataTypeBytes(op.dtype);
    SWITCHYARD_RETURN_IF_ERROR(CheckFreeSpace(request_.stage, planned));
    if (registry_.rank() == 0) SWITCHYARD_RETURN_IF_ERROR(WriteOnce());
    SWITCHYARD_RETURN_IF_ERROR(writer_.Close());
    std::vector<FilePiece> pieces = writer_.pieces();
    int64_t bytes = writer_.bytes_written();
    SWITCHYARD_RETURN_IF_ERROR(WriteShards(ops, pieces, bytes));
    const std::string list = PiecesJson(pieces);
    const std::string name = PiecesFileName(registry_.rank(), registry_.mesh().world_size());
    SWITCHYARD_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(request_.stage, "/", name), list));
    SWITCHYARD_RETURN_IF_ERROR(
        SyncDirectory(absl::StrCat(request_.stage, "/", kTrainingStateDirectory)));
    SWITCHYARD_RETURN_IF_ERROR(SyncDirectory(request_.stage));
    return bytes + static_cast<int64_t>(list.size());
  }

 private:
  int num_files() const { return static_cast<int>(files_.files().size()); }
  std::string FileName(int file) const {
    return file < num_files() ? files_.file_names()[file]
                              : StateFileName(file - num_files(), num_files());
  }
  bool float_weights() const { return registry_.values().scalar_type() == at::kFloat; }

  TrainedAs Trained() const {
    const OptimizerShard& first = state_.shards.front();
    return {first.exp_avg.scalar_type() == at::kBFloat16 ? DataType::kBF16 : DataType::kF32,
            !float_weights() && !first.master_remainder.defined()};
  }

  // Everything that this rank writes, in the order of files and bytes.
  std::vector<WriteOp> Plan() const {
    // Position of state tensors by name, looked up once a tensor.
    std::vector<absl::flat_hash_map<std::string, const SafetensorsTensor*>> state_tensors(
        state_headers_.size());
    for (size_t f = 0; f < state_headers_.size(); ++f) {
      for (const SafetensorsTensor& tensor : state_headers_[f].tensors)
        state_tensors[f][tensor.name] = &tensor;
    }
    std::vector<WriteOp> ops;
    for (size_t b = 0; b < registry_.blocks().size(); ++b) {
      const ParameterBlock& block = registry_.blocks()[b];
      const int64_t begin = registry_.shard_index(block) * block.shard_numel();
      for (const BlockSegment& part : map_.Segments(
               static_cast<int>(b), begin, begin + block.shard_numel(), /*with_copies=*/true)) {
        const SafetensorsTensor& weight = files_.tensor(part.tensor);
        const int file = files_.file_of(part.tensor);
        const auto add = [&](int to_file, const SafetensorsHeader& header,
                             const SafetensorsTensor& tensor, Source source) {
          ops.push_back(
              {to_file,
               header.DataOffset(tensor) + part.tensor_offset * DataTypeBytes(tensor.dtype), source,
               tensor.dtype, part.tensor, static_cast<int>(b), part.block_offset - begin,
               part.count});
        };
        add(file, files_.files()[file].header(), weight, Source::kWeight);
        constexpr std::pair<StateKind, Source> kStates[] = {
            {StateKind::kExpAvg, Source::kExpAvg},
            {StateKind::kExpAvgSq, Source::kExpAvgSq},
            {StateKind::kMaster, Source::kMaster},
            {StateKind::kMasterRemainder, Source::kMasterRemainder}};
        for (const auto& [kind, source] : kStates) {
          const auto found = state_tensors[file].find(StateTensorName(kind, weight.name));
          if (found != state_tensors[file].end()) {
            add(num_files() + file, state_headers_[file], *found->second, source);
          }
        }
      }
    }
    std::sort(ops.begin(), ops.end(), [](const WriteOp& a, const WriteOp& b) {
      return std::tuple(a.file, a.position) < std::tuple(b.file, b.position);
    });
    return ops;
  }

  // Each file by one thread, several at a time. Adds what was written, in the order of files.
  absl::Status WriteShards(const std::vector<WriteOp>& ops, std::vector<FilePiece>& pieces,
                           int64_t& bytes) const {
    std::vector<size_t> begins;
    for (size_t i = 0; i < ops.size(); ++i) {
      if (i == 0 || ops[i].file != ops[i - 1].file) begins.push_back(i);
    }
    begins.push_back(ops.size());
    std::vector<FileWriter> writers;
    writers.reserve(static_cast<size_t>(FileThreads()));
    for (int i = 0; i < FileThreads(); ++i)
      writers.emplace_back(registry_, state_, files_, request_.stage);
    SWITCHYARD_RETURN_IF_ERROR(
        ForEachInParallel(begins.size() - 1, FileThreads(), [&](int worker, size_t i) {
          const WriteOp* first = ops.data() + begins[i];
          return writers[static_cast<size_t>(worker)].Write(FileName(first->file), first,
                                                            ops.data() + begins[i + 1]);
        }));
    const size_t before = pieces.size();
    for (const FileWriter& writer : writers) {
      const std::vector<FilePiece>& own = writer.writer().pieces();
      pieces.insert(pieces.end(), own.begin(), own.end());
      bytes += writer.writer().bytes_written();
    }
    std::sort(pieces.begin() + static_cast<std::ptrdiff_t>(before), pieces.end(),
              [](const FilePiece& a, const FilePiece& b) {
                return std::tie(a.file, a.offset) < std::tie(b.file, b.offset);
              });
    return absl::OkStatus();
  }

  // What exists once: headers, index, sidecar files, state.json.
  absl::Status WriteOnce() {
    for (int file = 0; file < 2 * num_files(); ++file) {
      const SafetensorsHeader& header =
          file < num_files() ? files_.files()[file].header() : state_headers_[file - num_files()];
      SWITCHYARD_RETURN_IF_ERROR(writer_.Open(FileName(file)));
      SWITCHYARD_RETURN_IF_ERROR(writer_.Resize(header.file_bytes()));
      SWITCHYARD_RETURN_IF_ERROR(
          writer_.Write(header.raw.data(), static_cast<int64_t>(header.raw.size()), 0));
    }
    if (!files_.index_text().empty()) {
      SWITCHYARD_RETURN_IF_ERROR(writer_.WriteFile(kWeightIndexFile, files_.index_text()));
    }
    SWITCHYARD_ASSIGN_OR_RETURN(const std::vector<SidecarFile> sidecars,
                                ReadSidecarFiles(request_.source));
    for (const SidecarFile& sidecar : sidecars) {
      SWITCHYARD_RETURN_IF_ERROR(writer_.WriteFile(sidecar.name, sidecar.contents));
    }
    CheckpointMetadata metadata = request_.metadata;
    metadata.adam_step = state_.adam_step;
    metadata.world_size = registry_.mesh().world_size();
    metadata.expert_parallel = registry_.mesh().expert_parallel();
    metadata.precision = float_weights() ? "float32" : "bfloat16";
    metadata.optimizer = Trained().moments == DataType::kBF16 ? "compact" : "exact";
    return writer_.WriteFile(kTrainingStateFile, MetadataJson(metadata));
  }

  const SaveRequest& request_;
  const ParameterRegistry& registry_;
  const OptimizerState& state_;
  const CheckpointFiles& files_;
  const CheckpointMap& map_;
  PieceWriter writer_;
  std::vector<SafetensorsHeader> state_headers_;
};

}  // namespace

absl::StatusOr<int64_t> SaveCheckpoint(const SaveRequest& request,
                                       const ParameterRegistry& registry,
                                       const OptimizerState& state) {
  SWITCHYARD_CHECK(state.shards.size() == registry.blocks().size(), "one optimizer shard a block");
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointFiles files, CheckpointFiles::Open(request.source));
  SWITCHYARD_ASSIGN_OR_RETURN(const CheckpointMap map, CheckpointMap::Create(registry, files));
  return Saver(request, registry, state, files, map).Run();
}

}  // namespace switchyard::trainer
