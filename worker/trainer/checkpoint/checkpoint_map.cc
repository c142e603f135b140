#include "worker/trainer/checkpoint/checkpoint_map.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/check.h"
#include "worker/trainer/checkpoint/problem_list.h"

namespace switchyard::trainer {
namespace {

constexpr char kEmbedding[] = "model.embed_tokens.weight";
constexpr char kHead[] = "lm_head.weight";
constexpr char kGateUp[] = "experts.gate_up_proj";
constexpr char kDown[] = "experts.down_proj";

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

// Claims tensors for parameters; what is wrong goes to a ProblemList.
class MapBuilder {
 public:
  MapBuilder(const ParameterRegistry& registry, const CheckpointFiles& files)
      : registry_(registry), files_(files), claimed_(files.num_tensors(), false) {
    for (int i = 0; i < files.num_tensors(); ++i) {
      const std::string& name = files.tensor(i).name;
      any_fused_ |= absl::EndsWith(name, kGateUp);
    }
  }

  void AddReplicated(int parameter) {
    const Parameter& p = registry_.parameters()[parameter];
    const int tensor = Claim(p.name, p.shape);
    if (tensor >= 0) pieces_.push_back({parameter, 0, tensor, 0, p.numel});
  }

  void AddExperts(int parameter) {
    const Parameter& p = registry_.parameters()[parameter];
    const Mesh& mesh = registry_.mesh();
    const int local = mesh.experts_per_rank();
    const int first = mesh.first_expert(registry_.rank());
    const int experts = local * mesh.expert_parallel();
    const bool gate_up = absl::EndsWith(p.name, kGateUp);
    SWITCHYARD_CHECK(gate_up || absl::EndsWith(p.name, kDown), "unknown expert parameter");
    const int64_t each = p.numel / local;
    const std::string prefix = p.name.substr(0, p.name.rfind('.') + 1);
    if (IsFused(prefix)) {
      std::vector<int64_t> shape = p.shape;
      shape[0] = experts;
      const int tensor = Claim(p.name, shape);
      if (tensor >= 0) pieces_.push_back({parameter, 0, tensor, first * each, p.numel});
      return;
    }
    const std::vector<std::string> projections =
        gate_up ? std::vector<std::string>{"gate_proj", "up_proj"}
                : std::vector<std::string>{"down_proj"};
    const auto parts = static_cast<int64_t>(projections.size());
    const std::vector<int64_t> shape = {p.shape[1] / parts, p.shape[2]};
    for (int expert = 0; expert < experts; ++expert) {
      for (int64_t part = 0; part < parts; ++part) {
        const int tensor =
            Claim(absl::StrCat(prefix, expert, ".", projections[part], ".weight"), shape);
        if (tensor < 0 || expert < first || expert >= first + local) continue;
        const int64_t count = each / parts;
        pieces_.push_back({parameter, (expert - first) * each + part * count, tensor, 0, count});
      }
    }
  }

  // A tied model's checkpoint may repeat the embedding as the head.
  void AddTiedHead() {
    const int embedding = registry_.Find(kEmbedding);
    if (registry_.Find(kHead) >= 0 || embedding < 0 || files_.Find(kHead) < 0) return;
    const int copy = Claim(kHead, registry_.parameters()[embedding].shape);
    const int original = files_.Find(kEmbedding);
    if (copy < 0 || original < 0) return;
    if (files_.tensor(copy).dtype != files_.tensor(original).dtype) {
      problems_.Add("wrong dtype",
                    absl::StrFormat("%s is %s, but config.json ties it to %s, which is %s", kHead,
                                    DataTypeName(files_.tensor(copy).dtype), kEmbedding,
                                    DataTypeName(files_.tensor(original).dtype)));
      return;
    }
    copies_.emplace_back(copy, original);
  }

  absl::Status Finish() {
    for (int i = 0; i < files_.num_tensors(); ++i) {
      if (!claimed_[i]) problems_.Add("unexpected", files_.tensor(i).name);
    }
    if (problems_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("the tensors of %s do not match its config.json: %s", files_.directory(),
                        problems_.Text()));
  }

  std::vector<CheckpointPiece>& pieces() { return pieces_; }
  std::vector<std::pair<int, int>>& copies() { return copies_; }

 private:
  bool IsFused(const std::string& prefix) const {
    if (files_.Find(prefix + "gate_up_proj") >= 0 || files_.Find(prefix + "down_proj") >= 0)
      return true;
    if (files_.Find(prefix + "0.gate_proj.weight") >= 0) return false;
    return any_fused_;  // the layer is missing: name it as its neighbours are
  }

  // The tensor, or -1 with the reason noted.
  int Claim(const std::string& name, const std::vector<int64_t>& shape) {
    const int tensor = files_.Find(name);
    if (tensor < 0) {
      problems_.Add("missing", name);
      return -1;
    }
    SWITCHYARD_CHECK(!claimed_[tensor], "two parameters want one tensor");
    claimed_[tensor] = true;
    const SafetensorsTensor& info = files_.tensor(tensor);
    if (info.shape != shape) {
      problems_.Add("wrong shape", absl::StrFormat("%s is %s, config.json asks for %s", name,
                                                   ShapeText(info.shape), ShapeText(shape)));
      return -1;
    }
    if (info.dtype != DataType::kF32 && info.dtype != DataType::kBF16 &&
        info.dtype != DataType::kF16) {
      problems_.Add("wrong dtype", absl::StrFormat("%s is %s, supported are F32, BF16 and F16",
                                                   name, DataTypeName(info.dtype)));
      return -1;
    }
    return tensor;
  }

  const ParameterRegistry& registry_;
  const CheckpointFiles& files_;
  std::vector<bool> claimed_;
  bool any_fused_ = false;
  std::vector<CheckpointPiece> pieces_;
  std::vector<std::pair<int, int>> copies_;
  ProblemList problems_;
};

}  // namespace

absl::StatusOr<CheckpointMap> CheckpointMap::Create(const ParameterRegistry& registry,
                                                    const CheckpointFiles& files) {
  MapBuilder builder(registry, files);
  const std::vector<Parameter>& parameters = registry.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].kind == ParameterKind::kExpert) {
      builder.AddExperts(static_cast<int>(i));
    } else {
      builder.AddReplicated(static_cast<int>(i));
    }
  }
  builder.AddTiedHead();
  if (absl::Status status = builder.Finish(); !status.ok()) return status;

  CheckpointMap map;
  map.pieces_ = std::move(builder.pieces());
  map.copies_ = std::move(builder.copies());
  std::sort(map.pieces_.begin(), map.pieces_.end(),
            [](const CheckpointPiece& a, const CheckpointPiece& b) {
              return std::pair(a.parameter, a.parameter_offset) <
                     std::pair(b.parameter, b.parameter_offset);
            });
  map.blocks_.resize(registry.blocks().size());
  size_t next = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    int64_t covered = 0;
    for (; next < map.pieces_.size() && map.pieces_[next].parameter == static_cast<int>(i);
         ++next) {
      const CheckpointPiece& piece = map.pieces_[next];
      SWITCHYARD_CHECK(piece.parameter_offset == covered, "a parameter has a gap or an overlap");
      covered += piece.count;
      map.blocks_[parameters[i].block].push_back({piece.tensor, piece.tensor_offset,
                                                  parameters[i].offset + piece.parameter_offset,
                                                  piece.count});
    }
    SWITCHYARD_CHECK(covered == parameters[i].numel, "a parameter is not covered");
  }
  for (std::vector<BlockSegment>& segments : map.blocks_) {
    std::sort(segments.begin(), segments.end(), [](const BlockSegment& a, const BlockSegment& b) {
      return a.block_offset < b.block_offset;
    });
  }
  return map;
}

std::vector<BlockSegment> CheckpointMap::Segments(int block, int64_t begin, int64_t end,
                                                  bool with_copies) const {
  std::vector<BlockSegment> result;
  for (const BlockSegment& whole : blocks_[block]) {
    const int64_t from = std::max(begin, whole.block_offset);
    const int64_t to = std::min(end, whole.block_offset + whole.count);
    if (from >= to) continue;
    BlockSegment part{whole.tensor, whole.tensor_offset + from - whole.block_offset, from,
                      to - from};
    result.push_back(part);
    if (!with_copies) continue;
    for (const auto& [copy, original] : copies_) {
      if (original != part.tensor) continue;
      part.tensor = copy;
      result.push_back(part);
    }
  }
  return result;
}

}  // namespace switchyard::trainer
