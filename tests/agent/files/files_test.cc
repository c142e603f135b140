// Probing paths, publishing and removing checkpoints on a real file system.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/agent/support/temporary_directory.h"
#include "worker/agent/files/checkpoint.h"
#include "worker/agent/files/probe.h"

namespace switchyard::agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
constexpr std::chrono::milliseconds kNoWait{0};

class ProbeTest : public ::testing::Test {
 protected:
  ProbeTest() {
    dir.Write("model/config.json", "{}");
    dir.Write("model/model.safetensors", "weights");
    request.set_probe_id("id");
    request.set_model(dir / "model");
    request.set_output(dir / "out");
  }
  v1::ProbeResult Probe() { return ProbePathsOnDisk(request, "node-a", kNoWait); }
  TemporaryDirectory dir;
  v1::ProbePaths request;
};

TEST_F(ProbeTest, AllWellCreatesTheOutputAndTellsFreeBytes) {
  const auto result = Probe();
  EXPECT_THAT(result.problems(), IsEmpty());
  EXPECT_EQ(result.probe_id(), "id");
  EXPECT_GT(result.disk_free_bytes(), 0);
  EXPECT_EQ(result.model_fingerprint().size(), 16u);
  EXPECT_TRUE(std::filesystem::is_empty(dir / "out"));
}

TEST_F(ProbeTest, FingerprintChangesWithConfigNamesAndSizesOnly) {
  const std::string original = Probe().model_fingerprint();
  EXPECT_EQ(Probe().model_fingerprint(), original);
  dir.Write("model/model.safetensors", "longer weights");
  const std::string longer = Probe().model_fingerprint();
  EXPECT_NE(longer, original);
  dir.Write("model/config.json", "{ }");
  EXPECT_NE(Probe().model_fingerprint(), longer);
}

TEST_F(ProbeTest, NamesWhatIsMissing) {
  request.set_model(dir / "nowhere");
  request.add_data(dir / "train.jsonl");
  const auto result = Probe();
  ASSERT_EQ(result.problems_size(), 2);
  EXPECT_EQ(result.problems(0),
            "model " + (dir / "nowhere") +
                " does not exist; give the directory that holds config.json and *.safetensors");
  EXPECT_EQ(result.problems(1),
            "data " + (dir / "train.jsonl") + " cannot be read: No such file or directory");
}

TEST_F(ProbeTest, AModelWithoutConfigOrWeightsIsAProblem) {
  std::filesystem::remove(dir / "model/model.safetensors");
  EXPECT_THAT(Probe().problems(), ElementsAre(HasSubstr("holds no *.safetensors file")));
  std::filesystem::remove(dir / "model/config.json");
  EXPECT_THAT(Probe().problems(), ElementsAre(HasSubstr("config.json cannot be read")));
}

TEST_F(ProbeTest, AnOutputThatIsAFileIsAProblem) {
  request.set_output(dir.Write("file", "x") + "/out");
  EXPECT_THAT(Probe().problems(), ElementsAre(HasSubstr("cannot be created")));
}

TEST_F(ProbeTest, OnlyTheNonceOfThisAttemptProvesTheSameDirectory) {
  request.set_nonce("nonce-1");
  EXPECT_THAT(Probe().problems(), ElementsAre(HasSubstr("their nonce file is missing")));
  request.set_write_nonce(true);
  EXPECT_THAT(Probe().problems(), IsEmpty());
  request.set_write_nonce(false);
  EXPECT_THAT(Probe().problems(), IsEmpty());
  request.set_nonce("nonce-2");
  EXPECT_THAT(Probe().problems(), ElementsAre(HasSubstr("it holds another nonce")));
}

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    dir.Write("stage/training_state/state.json", R"({"job_uid": "job", "step": 10, "epoch": 2})");
    dir.Write("stage/model.safetensors", "0123456789");
    request.set_job_uid("job");
    request.set_epoch(2);
    request.set_step(10);
    request.set_stage_path(dir / "stage");
    request.set_final_path(dir / "checkpoints/step-10");
  }
  TemporaryDirectory dir;
  v1::PublishCheckpoint request;
};

TEST_F(CheckpointTest, PublishesOnceHoweverOftenItIsTold) {
  for (int i = 0; i < 2; ++i) {
    const auto published = PublishOnDisk(request);
    EXPECT_EQ(published.error(), "");
    EXPECT_EQ(published.step(), 10);
    EXPECT_EQ(published.final_path(), dir / "checkpoints/step-10");
    EXPECT_GT(published.bytes(), 10);
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "stage"));
}

TEST_F(CheckpointTest, RefusesAStageOfAnotherAttempt) {
  request.set_epoch(3);
  EXPECT_NE(PublishOnDisk(request).error(), "");
  EXPECT_TRUE(std::filesystem::exists(dir / "stage"));
}

TEST_F(CheckpointTest, RemovesOnlyACheckpointOfTheJob) {
  PublishOnDisk(request);
  v1::RemoveCheckpoint remove;
  remove.set_job_uid("another");
  remove.set_path(request.final_path());
  EXPECT_FALSE(RemoveCheckpointOnDisk(remove).ok());
  dir.Write("precious/data", "x");
  remove.set_job_uid("job");
  remove.set_path(dir / "precious");
  EXPECT_FALSE(RemoveCheckpointOnDisk(remove).ok());
  EXPECT_TRUE(std::filesystem::exists(dir / "precious/data"));
  remove.set_path(request.final_path());
  EXPECT_TRUE(RemoveCheckpointOnDisk(remove).ok());
  EXPECT_FALSE(std::filesystem::exists(request.final_path()));
  EXPECT_TRUE(RemoveCheckpointOnDisk(remove).ok());
}

}  // namespace
}  // namespace switchyard::agent
