// `check` on meshes of several processes against Transformers.
#include "worker/trainer/train/check.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tests/trainer/model/golden.h"
#include "tests/trainer/support/multi_process.h"
#include "worker/trainer/checkpoint/safetensors_tensor.h"
#include "worker/trainer/comm/mesh_groups.h"

namespace switchyard::trainer {
namespace {

struct MeshShape {
  int ranks;
  int expert_parallel;
};

// The batch of a case as a file for `check`.
std::string WriteBatch(const Golden& golden, const std::string& directory) {
  NamedTensors tensors;
  for (const char* name : {"input_ids", "labels", "position_ids"}) {
    tensors.emplace_back(name, golden.tensors.at(name));
  }
  const std::string path = directory + "/batch.safetensors";
  EXPECT_TRUE(WriteTensors(path, tensors).ok());
  return path;
}

// Checkpoint tensor `name` of a golden parameter-by-parameter list: one expert's part of a stacked
// tensor.
at::Tensor GoldenTensor(const Golden& golden, const std::string& prefix, const std::string& name) {
  if (const auto it = golden.tensors.find(prefix + name); it != golden.tensors.end())
    return it->second;
  const size_t experts = name.find(".experts.") + 9;
  const std::string stem = prefix + name.substr(0, experts);
  const int64_t expert = std::stoll(name.substr(experts));
  if (name.find("down_proj") != std::string::npos) {
    return golden.tensors.at(stem + "down_proj").select(0, expert);
  }
  const auto halves = golden.tensors.at(stem + "gate_up_proj").select(0, expert).chunk(2);
  return halves[name.find("up_proj") != std::string::npos ? 1 : 0];
}

void ExpectGolden(const Golden& golden, const std::string& path) {
  const NamedTensors tensors = ReadTensors(path).value();
  size_t compared = 0;
  for (const auto& [name, tensor] : tensors) {
    const bool gradient = name.rfind("grad.", 0) == 0, value = name.rfind("param.", 0) == 0;
    if (name == "aux_loss" && golden.tensors.count(name) == 0) {
      EXPECT_EQ(tensor.item<double>(), 0);
      continue;
    }
    const at::Tensor expected = gradient ? GoldenTensor(golden, "grad.", name.substr(5))
                                : value  ? GoldenTensor(golden, "param.", name.substr(6))
                                         : golden.tensors.at(name);
    const at::Tensor flat = expected.numel() == 1 ? expected.view(tensor.sizes()) : expected;
    EXPECT_EQ(tensor.sizes(), flat.sizes()) << name;
    EXPECT_LT(RelativeError(tensor, flat), gradient ? 1e-4 : 1e-5) << name;
    ++compared;
  }
  EXPECT_GT(compared, golden.shape.num_layers * 10);
}

// Runs `check` of one case on a mesh; rank 0 compares.
void CheckOnMesh(const std::string& name, MeshShape mesh, int64_t steps) {
  const std::string unique = UniqueName("check");
  const std::string token = NewRendezvousToken();
  const std::filesystem::path directory = std::filesystem::temp_directory_path() / unique;
  std::filesystem::create_directories(directory);
  RunRanks(mesh.ranks, [&](int rank) {
    at::set_num_threads(1);
    const Golden golden = LoadGolden(name);
    CheckOptions options;
    options.model = golden.directory;
    std::filesystem::create_directories(directory / std::to_string(rank));
    options.batch = WriteBatch(golden, directory / std::to_string(rank));
    options.out = directory / "out.safetensors";
    options.ranks = mesh.ranks;
    options.expert_parallel = mesh.expert_parallel;
    options.rank = rank;
    options.steps = steps;
    options.job_uid = unique;
    options.rendezvous_id = token;
    RunCheck(options);
    if (rank != 0) return;
    ExpectGolden(golden, options.out);
    // The one case that is there for it.
    RankMemoryInput input{.model = golden.shape, .ranks = mesh.ranks};
    input.micro_batch_sequences = (golden.Rows().input_ids.size(0) + mesh.ranks - 1) / mesh.ranks;
    input.sequence_length = golden.Rows().input_ids.size(1);
    EXPECT_EQ(GathersEmbeddingRows(input), name == "large_vocabulary" && mesh.ranks > 1);
  });
  std::filesystem::remove_all(directory);
}

using MeshCase = std::tuple<std::string, MeshShape, int64_t>;
// `check` with every activation memory on a mesh: all that rank 0 writes must be the same.
void ExpectTheSameBytes(const std::string& name, MeshShape mesh, Precision precision) {
  const std::string unique = UniqueName("recompute");
  const std::filesystem::path directory = std::filesystem::temp_directory_path() / unique;
  std::filesystem::create_directories(directory);
  std::vector<std::string> tokens;
  for (size_t i = 0; i < kActivationMemories.size(); ++i) tokens.push_back(NewRendezvousToken());
  RunRanks(mesh.ranks, [&](int rank) {
    at::set_num_threads(1);
    const Golden golden = LoadGolden(name);
    CheckOptions options;
    options.model = golden.directory;
    std::filesystem::create_directories(directory / std::to_string(rank));
    options.batch = WriteBatch(golden, directory / std::to_string(rank));
    options.ranks = mesh.ranks;
    options.expert_parallel = mesh.expert_parallel;
    options.rank = rank;
    options.precision = precision;
    options.steps = 2;
    NamedTensors kept;
    for (size_t i = 0; i < kActivationMemories.size(); ++i) {
      options.activations = kActivationMemories[i];
      options.out = directory / (std::to_string(i) + ".safetensors");
      options.job_uid = unique + std::to_string(i);
      options.rendezvous_id = tokens[i];
      RunCheck(options);
      if (rank != 0) continue;
      const NamedTensors tensors = ReadTensors(options.out).value();
      if (i == 0) kept = tensors;
      ASSERT_EQ(tensors.size(), kept.size());
      for (size_t t = 0; t < kept.size(); ++t) {
        EXPECT_TRUE(tensors[t].second.equal(kept[t].second))
            << ActivationMemoryName(kActivationMemories[i]) << ' ' << kept[t].first;
      }
    }
  });
  std::filesystem::remove_all(directory);
}

TEST(CheckRecomputeTest, GivesTheSameBytesOnAMesh) {
  ExpectTheSameBytes("plain", {4, 2}, Precision::kFloat32);
  ExpectTheSameBytes("plain", {2, 2}, Precision::kBfloat16);
  ExpectTheSameBytes("dense_layers", {4, 4}, Precision::kFloat32);
  ExpectTheSameBytes("packed_documents", {2, 2}, Precision::kFloat32);
}

class CheckTest : public testing::TestWithParam<MeshCase> {};

TEST_P(CheckTest, AgreesWithTransformers) {
  const auto& [name, mesh, steps] = GetParam();
  CheckOnMesh(name, mesh, steps);
}

std::string NameOf(const testing::TestParamInfo<MeshCase>& test) {
  const auto& [name, mesh, steps] = test.param;
  return name + "_ranks_" + std::to_string(mesh.ranks) + "_ep_" +
         std::to_string(mesh.expert_parallel);
}

INSTANTIATE_TEST_SUITE_P(
    Meshes, CheckTest,
    testing::Values(MeshCase{"plain", {1, 1}, 3}, MeshCase{"plain", {2, 1}, 3},
                    MeshCase{"plain", {2, 2}, 3}, MeshCase{"plain", {4, 2}, 3},
                    MeshCase{"plain", {4, 4}, 3}, MeshCase{"one_key_head_tied", {4, 2}, 3},
                    MeshCase{"packed_documents", {2, 2}, 0}, MeshCase{"dense_layers", {4, 4}, 0},
                    MeshCase{"all_dense", {2, 1}, 0}, MeshCase{"unnormalized_weights", {4, 2}, 0},
                    MeshCase{"one_expert_a_token", {4, 4}, 0},
                    MeshCase{"attention_bias", {4, 2}, 3},
                    // Large enough for ranks to gather the rows of the embedding's gradient.
                    MeshCase{"large_vocabulary", {2, 2}, 3},
                    MeshCase{"large_vocabulary", {4, 2}, 3}),
    NameOf);

}  // namespace
}  // namespace switchyard::trainer
