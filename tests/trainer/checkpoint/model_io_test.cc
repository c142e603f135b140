#include "worker/trainer/checkpoint/model_io.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>

#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "worker/trainer/checkpoint/element_convert.h"

namespace switchyard::trainer {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ModelIoTest : public CheckpointTest {
 protected:
  // Message of loading dir "m" as config.json `tied` says, on one rank.
  std::string LoadError(bool tied = false) {
    Rank rank(TinyShape(tied), 1, 1, 0, at::kFloat);
    return std::string(LoadModel(Path("m"), rank.registry, nullptr).message());
  }
  // Expected value of a parameter of this rank, from the fused tensors.
  static at::Tensor Expected(const NamedTensors& fused, const ParameterRegistry& registry,
                             const Parameter& p) {
    for (const auto& [name, tensor] : fused) {
      if (name != p.name) continue;
      if (p.kind != ParameterKind::kExpert) return tensor;
      return tensor.narrow(0, registry.mesh().first_expert(registry.rank()), p.shape[0]);
    }
    return {};
  }
  // TinyTensors of the fused layout in the per-expert one, same values.
  static NamedTensors Unfuse(const NamedTensors& fused) {
    NamedTensors result;
    for (const auto& [name, tensor] : fused) {
      if (!absl::StrContains(name, "experts")) {
        result.emplace_back(name, tensor);
        continue;
      }
      const std::string prefix = name.substr(0, name.rfind('.') + 1);
      for (int64_t e = 0; e < tensor.size(0); ++e) {
        const at::Tensor one = tensor.select(0, e);
        if (absl::EndsWith(name, "gate_up_proj")) {
          result.emplace_back(absl::StrCat(prefix, e, ".gate_proj.weight"),
                              one.narrow(0, 0, one.size(0) / 2));
          result.emplace_back(absl::StrCat(prefix, e, ".up_proj.weight"),
                              one.narrow(0, one.size(0) / 2, one.size(0) / 2));
        } else {
          result.emplace_back(absl::StrCat(prefix, e, ".down_proj.weight"), one);
        }
      }
    }
    return result;
  }
};

TEST_F(ModelIoTest, GivesEveryRankOfEveryMeshItsPartOfEveryLayout) {
  for (const bool fused : {true, false}) {
    for (const bool tied : {true, false}) {
      for (const int files : {1, 3}) {
        CheckpointStyle style{true, tied, tied && files == 3, files, at::kBFloat16};
        const NamedTensors tensors = TinyTensors(style);
        style.fused = fused;
        const std::string directory = Path(absl::StrCat("m", fused, tied, files));
        WriteTinyCheckpoint(directory, style, fused ? tensors : Unfuse(tensors));
        for (const auto& [world, ep] :
             std::vector<std::pair<int, int>>{{1, 1}, {2, 1}, {2, 2}, {4, 2}, {4, 4}}) {
          for (int r = 0; r < world; ++r) {
            Rank rank(TinyShape(tied), world, ep, r, at::kFloat);
            const absl::Status status = LoadModel(directory, rank.registry, nullptr);
            ASSERT_TRUE(status.ok()) << status;
            for (size_t i = 0; i < rank.registry.parameters().size(); ++i) {
              const Parameter& p = rank.registry.parameters()[i];
              const at::Tensor expected = Expected(tensors, rank.registry, p);
              ASSERT_TRUE(expected.defined()) << p.name;
              ASSERT_TRUE(
                  at::equal(rank.registry.Value(static_cast<int>(i)), expected.to(at::kFloat)))
                  << p.name << " rank " << r << " ep " << ep;
            }
            EXPECT_FALSE(rank.registry.values().eq(-77).any().item<bool>())
                << "padding is not cleared";
          }
        }
      }
    }
  }
}

TEST_F(ModelIoTest, KeepsFloat32WeightsExactlyInWeightAndRemainder) {
  const CheckpointStyle style{false, false, false, 1, at::kFloat};
  WriteTinyCheckpoint(Path("m"), style, TinyTensors(style));
  Rank exact(TinyShape(false), 1, 1, 0, at::kFloat);
  ASSERT_TRUE(LoadModel(Path("m"), exact.registry, nullptr).ok());
  for (int r = 0; r < 2; ++r) {
    Rank rank(TinyShape(false), 2, 1, r, at::kBFloat16);
    ASSERT_TRUE(LoadModel(Path("m"), rank.registry, &rank.state).ok());
    for (size_t p = 0; p < rank.registry.parameters().size(); ++p) {
      const Parameter& info = rank.registry.parameters()[p];
      const ParameterBlock& block = rank.registry.blocks()[info.block];
      const at::Tensor weight = rank.registry.Value(static_cast<int>(p)).reshape({-1});
      const at::Tensor whole = exact.registry.Value(static_cast<int>(p)).reshape({-1}).contiguous();
      for (int64_t i = 0; i < info.numel; ++i) {
        const int64_t own =
            info.offset + i - rank.registry.shard_index(block) * block.shard_numel();
        if (own < 0 || own >= block.shard_numel()) continue;
        float master = 0;
        JoinMaster(static_cast<const uint16_t*>(weight.data_ptr()) + i,
                   rank.state.shards[info.block].master_remainder.data_ptr<int16_t>() + own,
                   &master, 1);
        ASSERT_EQ(master, whole.data_ptr<float>()[i]) << info.name;
      }
    }
  }
}

TEST_F(ModelIoTest, ListsEverythingThatDoesNotFit) {
  const CheckpointStyle style{false, false, false, 1, at::kBFloat16};
  NamedTensors tensors = TinyTensors(style);
  for (auto& [name, tensor] : tensors) {
    if (name == "model.norm.weight") name = "model.final_norm.weight";
    if (name == "model.layers.0.self_attn.q_proj.weight") tensor = tensor.narrow(0, 0, 8);
    if (name == "model.layers.1.mlp.experts.2.up_proj.weight") tensor = tensor.to(at::kChar);
  }
  WriteTinyCheckpoint(Path("m"), style, tensors);
  EXPECT_EQ(LoadError(),
            absl::StrCat("the tensors of ", Path("m"),
                         " do not match its config.json: missing (1): model.norm.weight; "
                         "wrong shape (1): model.layers.0.self_attn.q_proj.weight is [8, 16], "
                         "config.json asks for "
                         "[32, 16]; wrong dtype (1): model.layers.1.mlp.experts.2.up_proj.weight "
                         "is I8, supported are "
                         "F32, BF16 and F16; unexpected (1): model.final_norm.weight"));
}

TEST_F(ModelIoTest, RefusesAConfigWithFewerExpertsThanTheFiles) {
  const CheckpointStyle style{false, false, false, 1, at::kBFloat16};
  WriteTinyCheckpoint(Path("m"), style, TinyTensors(style));
  ModelShape shape = TinyShape(false);
  shape.num_experts = 2;
  Rank rank(shape, 1, 1, 0, at::kFloat);
  EXPECT_THAT(
      std::string(LoadModel(Path("m"), rank.registry, nullptr).message()),
      AllOf(HasSubstr("model.layers.1.mlp.gate.weight is [4, 16], config.json asks for [2, 16]"),
            HasSubstr("unexpected (6): model.layers.1.mlp.experts.2.down_proj.weight")));
}

TEST_F(ModelIoTest, RefusesATiedHeadThatDiffersAndAMissingUntiedOne) {
  const CheckpointStyle tied{false, true, true, 1, at::kBFloat16};
  NamedTensors tensors = TinyTensors(tied);
  tensors.back().second = tensors.back().second.add(1);
  WriteTinyCheckpoint(Path("m"), tied, tensors);
  EXPECT_EQ(LoadError(true), absl::StrCat(Path("m"),
                                          ": config.json ties lm_head.weight to "
                                          "model.embed_tokens.weight, but their values differ; set "
                                          "tie_word_embeddings to false or remove lm_head.weight"));
  tensors.pop_back();
  WriteTinyCheckpoint(Path("m"), tied, tensors);
  EXPECT_THAT(LoadError(false), HasSubstr("missing (1): lm_head.weight"));
}

TEST_F(ModelIoTest, NamesMissingFilesAndAnIndexThatContradictsThem) {
  EXPECT_EQ(LoadError(), absl::StrCat("model directory ", Path("m"), " does not exist"));
  std::filesystem::create_directories(Path("m"));
  EXPECT_EQ(LoadError(),
            absl::StrCat(Path("m"),
                         " has neither model.safetensors nor model.safetensors.index.json; "
                         "weights in other formats must be converted to safetensors first"));
  const CheckpointStyle style{false, false, false, 3, at::kBFloat16};
  WriteTinyCheckpoint(Path("m"), style, TinyTensors(style));
  const std::string index = Path("m/model.safetensors.index.json");
  std::string text = ReadBytes(index);
  const size_t at = text.find("\"model.norm.weight\"");
  std::string changed = text;
  changed.replace(at, 19, "\"model.nerm.weight\"");
  std::ofstream(index) << changed;
  EXPECT_EQ(LoadError(),
            absl::StrCat(index,
                         ": tensor not in the file that the index names (1): model.nerm.weight in "
                         "model-00003-of-00003.safetensors; tensor not in the index (1): "
                         "model.norm.weight of model-00003-of-00003.safetensors"));
  std::ofstream(index) << text;
  std::filesystem::remove(Path("m/model-00002-of-00003.safetensors"));
  EXPECT_EQ(LoadError(),
            absl::StrCat(index, ": missing file (1): model-00002-of-00003.safetensors"));
  std::ofstream(index) << "{";
  EXPECT_EQ(LoadError(),
            absl::StrCat(index, ": needs an object \"weight_map\" from tensor to file names"));
}

TEST_F(ModelIoTest, RefusesATruncatedFile) {
  const CheckpointStyle style{false, false, false, 1, at::kBFloat16};
  WriteTinyCheckpoint(Path("m"), style, TinyTensors(style));
  const std::string file = Path("m/model.safetensors");
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  EXPECT_THAT(LoadError(), AllOf(HasSubstr(file), HasSubstr("\"lm_head.weight\": data_offsets")));
}

TEST(ElementConvertTest, SplitsAndJoinsEveryKindOfFloatExactly) {
  std::vector<float> values = {0.f,        -0.f,   1.f,   1.00390625f, -1.00390625f,
                               3.1415927f, 1e-40f, 3e38f, -6.5e-5f};
  for (int i = 0; i < 1000; ++i)
    values.push_back(static_cast<float>(i * 0.7071 - 300) * (i % 2 ? 1e-9f : 1e9f));
  const auto n = static_cast<int64_t>(values.size());
  std::vector<uint16_t> weight(values.size());
  std::vector<int16_t> remainder(values.size());
  std::vector<float> joined(values.size());
  SplitMaster(values.data(), weight.data(), remainder.data(), n);
  JoinMaster(weight.data(), remainder.data(), joined.data(), n);
  EXPECT_EQ(std::memcmp(values.data(), joined.data(), values.size() * sizeof(float)), 0);
  const float big = 70000.f;
  uint16_t half = 0;
  EXPECT_EQ(FromFloat(&big, DataType::kF16, &half, 1).message(), "value 70000 does not fit in F16");
}

}  // namespace
}  // namespace switchyard::trainer
