// Reads what tools/switchyard_data/shards.py writes: the two sides of docs/data_format.md.
#include "worker/trainer/data/token_shards.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace switchyard::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Five documents of tokens 1..n in sequences 0, 0, 1, 2, 2 of 70 tokens; two sequences a shard. Of
// each document every token with t % 3 == 1 is a target.
constexpr char kWriter[] = R"(
import sys, numpy as np
sys.path.insert(0, sys.argv[1] + "/tools")
from switchyard_data import shards
lengths = [3, 67, 70, 5, 6]
tokens = np.concatenate([np.arange(1, n + 1) for n in lengths]).astype("<i4")
marks = np.concatenate([np.arange(n) % 3 == 1 for n in lengths]).astype(np.uint8)
shards.SHARD_BYTES = 700
sequence_of = np.array([0, 0, 1, 2, 2])
about = {"vocab_size": 80, "max_token_id": 70, "fingerprint": "f" * 32}
shards.write_split(sys.argv[2], (tokens, marks, lengths, sequence_of, 3), 70, about)
)";

class TokenShardsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = new std::string(absl::StrCat(::testing::TempDir(), "/token_shards_test.", ::getpid()));
    fs::remove_all(*root_);
    fs::create_directories(*root_);
    std::ofstream(*root_ + "/write.py") << kWriter;
    const std::string command =
        absl::StrCat(std::getenv("SWITCHYARD_VENV"), "/bin/python -B ", *root_, "/write.py ",
                     std::getenv("SWITCHYARD_SOURCE_DIR"), " ", *root_, "/good");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  static void TearDownTestSuite() {
    fs::remove_all(*root_);
    delete root_;
  }
  void SetUp() override {
    dir_ = *root_ + "/data";
    fs::remove_all(dir_);
    fs::copy(*root_ + "/good", dir_);
  }

  std::string Error(int64_t sequence_length = 70, int64_t vocab_size = 100, bool verify = true) {
    const auto shards = TokenShards::Open(dir_, {sequence_length, vocab_size, verify});
    return std::string(shards.status().message());
  }
  // Changes index.json by a JSON merge patch.
  void PatchIndex(const std::string& patch) {
    const std::string path = dir_ + "/index.json";
    nlohmann::json index = nlohmann::json::parse(std::ifstream(path));
    index.merge_patch(nlohmann::json::parse(patch));
    std::ofstream(path) << index;
  }
  void ChangeByte(const std::string& name, int64_t at) {
    std::fstream file(dir_ + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char changed = static_cast<char>(file.get() ^ 64);
    file.seekp(at);
    file.put(changed);
  }

  static std::string* root_;
  std::string dir_;
};

std::string* TokenShardsTest::root_ = nullptr;

TEST_F(TokenShardsTest, GivesBackWhatWasWritten) {
  for (const bool verify : {true, false}) {
    const auto shards = TokenShards::Open(dir_, {70, 71, verify});
    ASSERT_TRUE(shards.ok()) << shards.status();
    EXPECT_EQ(shards->num_sequences(), 3);
    EXPECT_EQ(shards->num_tokens(), 151);
    EXPECT_EQ(shards->num_targets(), 1 + 22 + 23 + 2 + 2);
    EXPECT_EQ(shards->fingerprint(), std::string(32, 'f'));
    EXPECT_TRUE(fs::exists(dir_ + "/tokens-00001.bin")) << "the data should have several shards";
    const TokenSequence first = shards->sequence(0);
    EXPECT_EQ(first.tokens.size(), 70u);
    EXPECT_EQ(first.tokens[3], 1);
    EXPECT_EQ(first.tokens[69], 67);
    EXPECT_THAT(first.document_starts, ElementsAre(0u, 3u));
    EXPECT_EQ(first.num_targets, 23);
    EXPECT_EQ(shards->num_targets(0), 23);
    EXPECT_TRUE(first.is_target(4) && first.is_target(67));
    EXPECT_FALSE(first.is_target(3) || first.is_target(68));
    const TokenSequence last = shards->sequence(2);
    EXPECT_THAT(last.tokens, ElementsAre(1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6));
    EXPECT_THAT(last.document_starts, ElementsAre(0u, 5u));
    EXPECT_EQ(shards->num_tokens(2), 11);
    EXPECT_EQ(shards->num_targets(2), 4);
  }
}

TEST_F(TokenShardsTest, RefusesDataOfAnotherLengthOrVocabulary) {
  EXPECT_EQ(Error(64), absl::StrCat(dir_,
                                    "/index.json: sequence_length of the data (70) is not the "
                                    "job's (64); prepare the data with the job's sequence_length"));
  EXPECT_EQ(Error(70, 70),
            absl::StrCat(dir_,
                         "/index.json: the data has token id 70, the model's vocab_size is 70; "
                         "prepare the data with this model's tokenizer"));
}

TEST_F(TokenShardsTest, NoticesEveryChangedByte) {
  for (const char* name : {"tokens-00000.bin", "tokens-00001.bin"}) {
    const auto size = static_cast<int64_t>(fs::file_size(dir_ + "/" + name));
    for (int64_t at = 0; at < size; at += 7) {
      ChangeByte(name, at);
      ASSERT_THAT(Error(), HasSubstr(dir_ + "/" + name)) << at;
      // Without reading everything it may go unnoticed, but must not lead outside of the file.
      if (const auto shards = TokenShards::Open(dir_, {70, 100, false}); shards.ok()) {
        for (int64_t i = 0; i < shards->num_sequences(); ++i) {
          const TokenSequence sequence = shards->sequence(i);
          ASSERT_LE(sequence.tokens.size(), 70u);
          for (const uint32_t start : sequence.document_starts) {
            ASSERT_LT(start, sequence.tokens.size());
          }
        }
      }
      ChangeByte(name, at);
    }
  }
  EXPECT_EQ(Error(), "");
  ChangeByte("tokens-00000.bin",
             static_cast<int64_t>(fs::file_size(dir_ + "/tokens-00000.bin")) - 1);
  EXPECT_THAT(Error(),
              HasSubstr("of index.json: the file changed; remove the directory and prepare "
                        "the data again"));
}

TEST_F(TokenShardsTest, RefusesCutMissingAndContradictingFiles) {
  const std::string shard = dir_ + "/tokens-00001.bin";
  const auto size = fs::file_size(shard);
  fs::resize_file(shard, size - 4);
  EXPECT_EQ(Error(), absl::StrCat(shard, ": has ", size - 4, " bytes, index.json says ", size,
                                  "; remove the directory and prepare the data again"));
  fs::remove(shard);
  EXPECT_EQ(Error(), absl::StrCat("cannot open ", shard, ": No such file or directory"));
  fs::copy(*root_ + "/good/tokens-00001.bin", shard);
  PatchIndex(R"({"targets": 49})");
  EXPECT_THAT(Error(), HasSubstr("totals (3 sequences, 151 tokens, 49 targets) are not the sums"));
  PatchIndex(R"({"targets": -1})");
  EXPECT_THAT(Error(), HasSubstr("targets must be a non-negative integer"));
  PatchIndex(R"({"version": 2})");
  EXPECT_THAT(Error(), HasSubstr("version 2 is not"));
  PatchIndex(R"({"version": 1, "targets": 50, "shards": [{"file": "../x"}]})");
  EXPECT_THAT(Error(), HasSubstr("shard file \"../x\" is not a plain name"));
  std::ofstream(dir_ + "/index.json") << "[";
  EXPECT_THAT(Error(), HasSubstr("not a JSON object"));
  fs::remove_all(dir_);
  EXPECT_EQ(Error(), absl::StrCat("cannot open ", dir_, "/index.json: No such file or directory"));
}

}  // namespace
}  // namespace switchyard::trainer
