#include "common/checkpoint_publish.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/content_hash.h"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

class CheckpointPublishTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = absl::StrCat(::testing::TempDir(), "/checkpoint_publish_test.", ::getpid());
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  void MakeCheckpoint(const std::string& name, const std::string& uid, int step, int epoch) {
    fs::create_directories(Path(name) + "/training_state");
    std::ofstream(Path(name) + "/training_state/state.json")
        << "{\"job_uid\":\"" << uid << "\",\"step\":" << step << ",\"epoch\":" << epoch << "}";
    std::ofstream(Path(name) + "/model.safetensors") << "12345678";
  }

  std::string dir_;
};

TEST_F(CheckpointPublishTest, RenamesTheStageAndIsIdempotent) {
  MakeCheckpoint("stage", "u1", 5, 2);
  const CheckpointIdentity identity{"u1", 5, 2};
  ASSERT_TRUE(PublishCheckpoint(Path("stage"), Path("out/checkpoints/step-5"), identity).ok());
  EXPECT_FALSE(fs::exists(Path("stage")));
  EXPECT_TRUE(fs::exists(Path("out/checkpoints/step-5/model.safetensors")));
  EXPECT_TRUE(PublishCheckpoint(Path("stage"), Path("out/checkpoints/step-5"), identity).ok());
  EXPECT_EQ(*ReadCheckpointIdentity(Path("out/checkpoints/step-5")), identity);
}

TEST_F(CheckpointPublishTest, RefusesATargetThatHoldsAnotherJobsResult) {
  MakeCheckpoint("stage", "u1", 5, 2);
  MakeCheckpoint("final", "u2", 7, 1);
  const absl::Status status = PublishCheckpoint(Path("stage"), Path("final"), {"u1", 5, 2});
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(
      status.message(),
      absl::StrCat(Path("final"),
                   " holds another job's result (job_uid u2, step 7, epoch 1); this is job_uid "
                   "u1: move it away or choose another output"));
  EXPECT_TRUE(fs::exists(Path("stage")));
  EXPECT_EQ(ReadCheckpointIdentity(Path("final"))->job_uid, "u2");
}

TEST_F(CheckpointPublishTest, RefusesATargetThatIsNoCheckpointOrAnOlderOneOfTheSameJob) {
  MakeCheckpoint("stage", "u1", 5, 2);
  fs::create_directories(Path("final"));
  std::ofstream(Path("final/precious")) << "x";
  EXPECT_EQ(
      PublishCheckpoint(Path("stage"), Path("final"), {"u1", 5, 2}).message(),
      absl::StrCat(
          Path("final"),
          " exists and is no checkpoint of this service; move it away or choose another output"));
  MakeCheckpoint("older", "u1", 5, 1);
  EXPECT_EQ(PublishCheckpoint(Path("stage"), Path("older"), {"u1", 5, 2}).message(),
            absl::StrCat(Path("older"),
                         " already holds a checkpoint of this job (job_uid u1, step 5, epoch 1); "
                         "the new one is job_uid "
                         "u1, step 5, epoch 2: resume from it or move it away"));
}

TEST_F(CheckpointPublishTest, RefusesAStageOfAnotherStepAndAMissingOne) {
  MakeCheckpoint("stage", "u1", 4, 2);
  EXPECT_EQ(
      PublishCheckpoint(Path("stage"), Path("final"), {"u1", 5, 2}).message(),
      absl::StrCat(
          Path("stage"),
          " holds job_uid u1, step 4, epoch 2, asked to publish job_uid u1, step 5, epoch 2"));
  EXPECT_EQ(PublishCheckpoint(Path("none"), Path("final"), {"u1", 5, 2}).code(),
            absl::StatusCode::kNotFound);
  std::ofstream(Path("stage/training_state/state.json")) << "{\"job_uid\": 3";
  EXPECT_EQ(PublishCheckpoint(Path("stage"), Path("final"), {"u1", 5, 2}).code(),
            absl::StatusCode::kDataLoss);
}

TEST_F(CheckpointPublishTest, RemovesOnlyItsOwnJobsCheckpoints) {
  MakeCheckpoint("step-5", "u1", 5, 2);
  EXPECT_EQ(*DirectoryBytes(Path("step-5")), 8 + 35);
  EXPECT_EQ(RemoveCheckpoint(Path("step-5"), "u2").message(),
            absl::StrCat(Path("step-5"), " is not removed: it belongs to job_uid u1, not u2"));
  fs::create_directories(Path("other"));
  EXPECT_EQ(RemoveCheckpoint(Path("other"), "u1").code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(RemoveCheckpoint(Path("step-5"), "u1").ok());
  EXPECT_FALSE(fs::exists(Path("step-5")));
  EXPECT_FALSE(fs::exists(Path("step-5.removing")));
  EXPECT_TRUE(RemoveCheckpoint(Path("step-5"), "u1").ok());
}

TEST(ContentHashTest, IsTheXxh3OfPython) {
  // python: xxhash.xxh3_64(b"switchyard").hexdigest()
  EXPECT_EQ(HashText(ContentHash("switchyard", 10)), "247cf7ff8e816afb");
  ContentHasher hasher;
  hasher.Add("switch", 6);
  hasher.Add("yard", 4);
  EXPECT_EQ(hasher.Digest(), ContentHash("switchyard", 10));
}

}  // namespace
}  // namespace switchyard
