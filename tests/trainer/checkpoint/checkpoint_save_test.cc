#include "worker/trainer/checkpoint/checkpoint_save.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint_publish.h"
#include "tests/trainer/checkpoint/checkpoint_fixture.h"
#include "worker/trainer/checkpoint/checkpoint_verify.h"
#include "worker/trainer/checkpoint/model_io.h"
#include "worker/trainer/checkpoint/training_state.h"

namespace switchyard::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct MeshSize {
  int world;
  int ep;
};
constexpr MeshSize kMeshes[] = {{1, 1}, {2, 1}, {2, 2}, {4, 1}, {4, 2}, {4, 4}};

struct Trained {
  bool tied = false;
  at::ScalarType dtype = at::kFloat;
  bool compact = false;
  at::ScalarType file_dtype = at::kBFloat16;
};

class CheckpointSaveTest : public CheckpointTest {
 protected:
  std::vector<std::unique_ptr<Rank>> MakeRanks(MeshSize mesh, const Trained& trained) {
    std::vector<std::unique_ptr<Rank>> ranks;
    for (int r = 0; r < mesh.world; ++r) {
      ranks.push_back(std::make_unique<Rank>(TinyShape(trained.tied), mesh.world, mesh.ep, r,
                                             trained.dtype, trained.compact));
    }
    return ranks;
  }

  CheckpointMetadata Metadata() {
    CheckpointMetadata m;
    m.job = "projects/p/jobs/j";
    m.job_uid = "uid-1";
    m.epoch = 3;
    m.progress = {7, 1, 0, 1234, 2.5};
    m.next_sequence = 56;
    m.seed = 42;
    m.train_fingerprint = "abc";
    return m;
  }

  // All ranks at once, as in life.
  void Save(const std::vector<std::unique_ptr<Rank>>& ranks, const std::string& source,
            const std::string& stage) {
    std::vector<absl::Status> results(ranks.size());
    std::vector<std::thread> threads;
    for (size_t r = 0; r < ranks.size(); ++r) {
      threads.emplace_back([&, r] {
        results[r] =
            SaveCheckpoint({stage, source, Metadata()}, ranks[r]->registry, ranks[r]->state)
                .status();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& result : results) ASSERT_TRUE(result.ok()) << result;
  }

  // One rank of a mesh of one with random weights and state, as if trained.
  std::vector<std::unique_ptr<Rank>> TrainedRank(const Trained& trained) {
    auto ranks = MakeRanks({1, 1}, trained);
    at::Generator generator = at::detail::createCPUGenerator(5);
    const auto fill = [&](const at::Tensor& tensor) {
      tensor.copy_(at::randn(tensor.sizes(), generator, at::TensorOptions(at::kFloat)));
    };
    fill(ranks[0]->registry.values());
    for (OptimizerShard& shard : ranks[0]->state.shards) {
      fill(shard.exp_avg);
      fill(shard.exp_avg_sq);
      if (shard.master_remainder.defined()) {
        shard.master_remainder.copy_(at::randint(-32768, 32767, shard.master_remainder.sizes(),
                                                 generator, at::TensorOptions(at::kShort)));
      }
    }
    ranks[0]->state.adam_step = 6;
    return ranks;
  }

  static void ExpectSameTensorFiles(const std::string& a, const std::string& b) {
    int compared = 0;
    for (const auto& entry : fs::recursive_directory_iterator(a)) {
      if (entry.path().extension() != ".safetensors") continue;
      const std::string name = fs::relative(entry.path(), a).string();
      ASSERT_EQ(ReadBytes(entry.path().string()), ReadBytes(b + "/" + name)) << name;
      ++compared;
    }
    EXPECT_GE(compared, 2);
  }

  std::string Source(const CheckpointStyle& style) {
    WriteTinyCheckpoint(Path("source"), style, TinyTensors(style));
    return Path("source");
  }
};

TEST_F(CheckpointSaveTest, LoadThenSaveGivesTheSameBytesInEveryLayoutDtypeAndMesh) {
  int number = 0;
  for (const bool fused : {false, true}) {
    for (const at::ScalarType file_dtype : {at::kBFloat16, at::kFloat, at::kHalf}) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const int files = number % 2 == 0 ? 3 : 1;
        const CheckpointStyle style{fused, files == 3, files == 3, files, file_dtype};
        const std::string source = Path(absl::StrCat("source", number));
        WriteTinyCheckpoint(source, style, TinyTensors(style));
        const MeshSize mesh = kMeshes[number % std::size(kMeshes)];
        auto ranks = MakeRanks(mesh, {style.tied, dtype, false});
        for (auto& rank : ranks) {
          const absl::Status status = LoadModel(source, rank->registry, &rank->state);
          ASSERT_TRUE(status.ok()) << status;
        }
        const std::string stage = Path(absl::StrCat("saved", number++));
        Save(ranks, source, stage);
        for (const auto& entry : fs::directory_iterator(source)) {
          const std::string name = entry.path().filename().string();
          ASSERT_EQ(ReadBytes(entry.path().string()), ReadBytes(stage + "/" + name))
              << name << " of " << stage;
        }
        const absl::Status verified = VerifyCheckpoint(stage);
        EXPECT_TRUE(verified.ok()) << verified;
      }
    }
  }
}

TEST_F(CheckpointSaveTest, StateOfOneMeshIsTheSameOnEveryOther) {
  for (const Trained& trained :
       {Trained{false, at::kFloat, false}, Trained{true, at::kBFloat16, false},
        Trained{false, at::kBFloat16, true}, Trained{false, at::kBFloat16, false, at::kHalf},
        Trained{false, at::kFloat, false, at::kHalf}}) {
    const CheckpointStyle style{trained.tied, trained.tied, trained.tied, 2, trained.file_dtype};
    const std::string source = Source(style);
    const std::string first = Path("first");
    fs::remove_all(first);
    Save(TrainedRank(trained), source, first);
    std::string previous = first;
    for (const MeshSize mesh : kMeshes) {  // each mesh resumes what the one before saved
      auto ranks = MakeRanks(mesh, trained);
      for (auto& rank : ranks) {
        const auto metadata = LoadTrainingState(previous, rank->registry, rank->state);
        ASSERT_TRUE(metadata.ok()) << metadata.status();
        EXPECT_EQ(metadata->progress.step, 7);
        EXPECT_EQ(rank->state.adam_step, 6);
      }
      const std::string next = Path(absl::StrCat("mesh", mesh.world, mesh.ep));
      fs::remove_all(next);
      Save(ranks, source, next);
      ExpectSameTensorFiles(first, next);
      for (int part = 0; part < 3; ++part) {
        const absl::Status verified = VerifyCheckpoint(next, part, 3);
        EXPECT_TRUE(verified.ok()) << verified;
      }
      previous = next;
    }
  }
}

TEST_F(CheckpointSaveTest, ResumesBitForBitOnTheSameMesh) {
  const Trained trained{false, at::kBFloat16, false};
  const CheckpointStyle style;
  const auto before = TrainedRank(trained);
  Save(before, Source(style), Path("saved"));
  auto after = MakeRanks({1, 1}, trained);
  const auto metadata = LoadTrainingState(Path("saved"), after[0]->registry, after[0]->state);
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  for (size_t p = 0; p < before[0]->registry.parameters().size(); ++p) {
    const Parameter& info = before[0]->registry.parameters()[p];
    const auto at = [&](const at::Tensor& shard) {
      return shard.narrow(0, info.offset, info.numel);
    };
    const OptimizerShard& a = before[0]->state.shards[info.block];
    const OptimizerShard& b = after[0]->state.shards[info.block];
    ASSERT_TRUE(at::equal(at(a.exp_avg), at(b.exp_avg))) << info.name;
    ASSERT_TRUE(at::equal(at(a.exp_avg_sq), at(b.exp_avg_sq))) << info.name;
    ASSERT_TRUE(at::equal(at(a.master_remainder), at(b.master_remainder))) << info.name;
    ASSERT_TRUE(at::equal(before[0]->registry.Value(static_cast<int>(p)),
                          after[0]->registry.Value(static_cast<int>(p))))
        << info.name;
  }
  EXPECT_EQ(metadata->job_uid, "uid-1");
  EXPECT_EQ(metadata->epoch, 3);
  EXPECT_EQ(metadata->progress.skipped_steps, 1);
  EXPECT_EQ(metadata->progress.tokens, 1234);
  EXPECT_EQ(metadata->progress.initial_eval_loss, 2.5);
  EXPECT_EQ(metadata->next_sequence, 56);
  EXPECT_EQ(metadata->seed, 42);
  EXPECT_EQ(metadata->train_fingerprint, "abc");
  EXPECT_EQ(metadata->precision, "bfloat16");
}

TEST_F(CheckpointSaveTest, RemaindersCompleteBfloat16FilesAndMastersFloat16Files) {
  struct Case {
    Trained trained;
    std::string rest;  // of the state's tensors, beside moments
    int64_t bytes;     // of model and state, a parameter
  };
  for (const Case& c : {Case{{false, at::kBFloat16, false}, "master_remainder.", 12},
                        Case{{false, at::kFloat, false}, "master_remainder.", 12},
                        Case{{false, at::kBFloat16, true}, "", 6},
                        Case{{false, at::kBFloat16, false, at::kHalf}, "master.", 14},
                        Case{{false, at::kFloat, false, at::kFloat}, "", 12}}) {
    const CheckpointStyle style{false, false, false, 1, c.trained.file_dtype};
    fs::remove_all(Path("saved"));
    Save(TrainedRank(c.trained), Source(style), Path("saved"));
    int64_t bytes = 0;
    for (const char* name :
         {"model.safetensors", "training_state/optimizer-00001-of-00001.safetensors"}) {
      const auto file = SafetensorsFile::Open(Path(absl::StrCat("saved/", name)));
      ASSERT_TRUE(file.ok()) << file.status();
      for (const SafetensorsTensor& tensor : file->header().tensors) {
        bytes += tensor.end - tensor.begin;
        EXPECT_EQ(tensor.begin % DataTypeBytes(tensor.dtype), 0) << tensor.name;
        if (!absl::StartsWith(tensor.name, "master")) continue;
        EXPECT_FALSE(c.rest.empty()) << tensor.name;
        EXPECT_TRUE(absl::StartsWith(tensor.name, c.rest)) << tensor.name;
      }
    }
    EXPECT_EQ(bytes, c.bytes * TinyShape(false).NumParameters()) << c.rest;
  }
}

TEST_F(CheckpointSaveTest, NoticesAnyDamageToAnyFile) {
  const CheckpointStyle style;
  const std::string saved = Path("saved");
  auto ranks = MakeRanks({2, 2}, {});
  for (auto& rank : ranks) ASSERT_TRUE(LoadModel(Source(style), rank->registry, &rank->state).ok());
  Save(ranks, Path("source"), saved);
  ASSERT_TRUE(VerifyCheckpoint(saved).ok());
  for (const auto& entry : fs::recursive_directory_iterator(saved)) {
    if (!entry.is_regular_file()) continue;
    const std::string path = entry.path().string();
    const std::string good = ReadBytes(path);
    for (const double where : {0.0, 0.5, 0.999}) {
      std::string bad = good;
      bad[static_cast<size_t>(static_cast<double>(bad.size()) * where)] ^= 4;
      std::ofstream(path, std::ios::binary) << bad;
      const absl::Status status = VerifyCheckpoint(saved);
      EXPECT_FALSE(status.ok()) << path << " at " << where;
      EXPECT_THAT(std::string(status.message()), HasSubstr(saved));
    }
    std::ofstream(path, std::ios::binary) << good.substr(0, good.size() - 1);
    EXPECT_FALSE(VerifyCheckpoint(saved).ok()) << path;
    std::ofstream(path, std::ios::binary) << good << "x";
    EXPECT_FALSE(VerifyCheckpoint(saved).ok()) << path;
    fs::remove(path);
    EXPECT_FALSE(VerifyCheckpoint(saved).ok()) << path;
    std::ofstream(path, std::ios::binary) << good;
  }
  EXPECT_TRUE(VerifyCheckpoint(saved).ok());
  const std::string model = saved + "/model.safetensors";
  std::string bytes = ReadBytes(model);
  bytes.back() ^= 1;
  std::ofstream(model, std::ios::binary) << bytes;
  EXPECT_THAT(std::string(VerifyCheckpoint(saved).message()),
              AllOf(HasSubstr(absl::StrCat(model, " is damaged between bytes ")),
                    HasSubstr("written was ")));
}

TEST_F(CheckpointSaveTest, NoticesARankThatNeverWrote) {
  const CheckpointStyle style;
  auto ranks = MakeRanks({2, 1}, {});
  for (auto& rank : ranks) ASSERT_TRUE(LoadModel(Source(style), rank->registry, &rank->state).ok());
  ranks.pop_back();
  Save(ranks, Path("source"), Path("saved"));
  const absl::Status status = VerifyCheckpoint(Path("saved"));
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(status.message(),
            absl::StrCat("cannot open ", Path("saved/training_state/pieces-00001-of-00002.json"),
                         ": No such file or directory"));
}

TEST_F(CheckpointSaveTest, RefusesToResumeWithAnotherOptimizer) {
  const CheckpointStyle style;
  const std::string source = Source(style);
  Save(TrainedRank({}), source, Path("saved"));
  auto ranks = MakeRanks({1, 1}, {false, at::kBFloat16, true});
  EXPECT_EQ(
      LoadTrainingState(Path("saved"), ranks[0]->registry, ranks[0]->state).status().message(),
      absl::StrCat(
          Path("saved"),
          " was written with optimizer \"exact\", the job says \"compact\"; resume with the "
          "same optimizer"));
  EXPECT_EQ(LoadTrainingState(source, ranks[0]->registry, ranks[0]->state).status().message(),
            absl::StrCat("cannot open ", source,
                         "/training_state/state.json: No such file or directory"));
}

TEST_F(CheckpointSaveTest, GivesAFloat32JobsStateToABfloat16JobWithTheSameMasters) {
  const CheckpointStyle style;
  const std::string source = Source(style);
  Save(TrainedRank({}), source, Path("float32"));
  auto ranks = MakeRanks({2, 2}, {false, at::kBFloat16, false});
  for (auto& rank : ranks) {
    ASSERT_TRUE(LoadTrainingState(Path("float32"), rank->registry, rank->state).ok());
  }
  Save(ranks, source, Path("bfloat16"));
  ExpectSameTensorFiles(Path("float32"), Path("bfloat16"));
}

TEST_F(CheckpointSaveTest, SaysWhatIsWrongWithTheOutput) {
  const CheckpointStyle style;
  auto ranks = MakeRanks({1, 1}, {});
  ASSERT_TRUE(LoadModel(Source(style), ranks[0]->registry, &ranks[0]->state).ok());
  std::ofstream(Path("file")) << "x";
  const auto save = [&](const std::string& stage) {
    return SaveCheckpoint({stage, Path("source"), Metadata()}, ranks[0]->registry, ranks[0]->state)
        .status();
  };
  EXPECT_THAT(std::string(save(Path("file/stage")).message()),
              AllOf(HasSubstr("cannot create directory"), HasSubstr(Path("file/stage"))));
  const absl::Status readonly = save("/proc/switchyard");
  EXPECT_THAT(std::string(readonly.message()),
              HasSubstr("cannot create directory /proc/switchyard"));
  ranks[0]->registry.values().fill_(1e6);
  const CheckpointStyle half{false, false, false, 1, at::kHalf};
  WriteTinyCheckpoint(Path("source"), half, TinyTensors(half));
  EXPECT_EQ(
      save(Path("half")).message(),
      "tensor \"model.embed_tokens.weight\" of model.safetensors: value 1e+06 does not fit in F16");
}

TEST_F(CheckpointSaveTest, PublishesWhatAllRanksWroteEvenOverAnAbandonedStage) {
  const CheckpointStyle style;
  const std::string source = Source(style);
  fs::create_directories(Path("out/.stage"));
  std::ofstream(Path("out/.stage/model.safetensors")) << std::string(1 << 20, 'x');
  Save(TrainedRank({}), source, Path("out/.stage"));
  ASSERT_TRUE(PublishCheckpoint(Path("out/.stage"), Path("out/final"), {"uid-1", 7, 3}).ok());
  EXPECT_TRUE(VerifyCheckpoint(Path("out/final")).ok());
}

}  // namespace
}  // namespace switchyard::trainer
