#include "coordinator/spec/environment.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kConfig[] = R"({"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"],
  "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
  "head_dim": 16, "vocab_size": 512, "intermediate_size": 128, "moe_intermediate_size": 32,
  "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": true, "decoder_sparse_step": 1,
  "mlp_only_layers": [], "max_position_embeddings": 512, "rope_theta": 10000.0, "rms_norm_eps": 1e-6,
  "tie_word_embeddings": false, "hidden_act": "silu", "torch_dtype": "float32"})";

// A safetensors file with this header and so many bytes of tensors.
std::string Safetensors(const std::string& header, size_t data_bytes) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return absl::StrCat(text, header, std::string(data_bytes, '\1'));
}

constexpr char kTwoTensors[] =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},)"
    R"("b":{"dtype":"F32","shape":[2],"data_offsets":[16,24]}})";

class EnvironmentTest : public ::testing::Test {
 protected:
  EnvironmentTest() {
    std::string name = (fs::temp_directory_path() / "environment-test-XXXXXX").string();
    root_ = ::mkdtemp(name.data());
    Write("model/config.json", kConfig);
    Write("model/model.safetensors", Safetensors(kTwoTensors, 24));
    Write("model/tokenizer.json", "{}");
    Write("data/train.jsonl", "{}\n");
    Write("data/eval.jsonl", "{}\n");
    spec_.set_name("job");
    spec_.set_model(Path("model"));
    spec_.mutable_data()->set_train(Path("data/train.jsonl"));
    spec_.mutable_data()->set_eval(Path("data/eval.jsonl"));
    spec_.mutable_data()->set_sequence_length(512);
    spec_.mutable_checkpoint()->set_output(Path("out/job"));
  }
  ~EnvironmentTest() override { fs::remove_all(root_); }

  std::string Path(const std::string& name) const { return (root_ / name).string(); }
  void Write(const std::string& name, const std::string& text) {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name, std::ios::binary) << text;
  }
  std::vector<std::string> Violations(const std::string& job_uid = "") {
    std::vector<std::string> texts;
    for (const auto& v : InspectEnvironment(spec_, job_uid).violations) {
      texts.push_back(absl::StrCat(v.field, ": ", v.description));
    }
    return texts;
  }
  std::string Model(const std::string& problem) const {
    return absl::StrCat("model: is \"", Path("model"), "\"; ", problem);
  }
  std::string Output(const std::string& problem) const {
    return absl::StrCat("checkpoint.output: is \"", spec_.checkpoint().output(), "\"; ", problem);
  }

  fs::path root_;
  v1::JobSpec spec_;
};

TEST_F(EnvironmentTest, ReportsShapeModelBytesAndFreeDiskOfAGoodSpec) {
  const Environment environment = InspectEnvironment(spec_, "");
  EXPECT_THAT(environment.violations, IsEmpty());
  ASSERT_TRUE(environment.model.has_value());
  EXPECT_EQ(environment.model->num_experts, 8);
  EXPECT_EQ(environment.model_bytes,
            static_cast<int64_t>(fs::file_size(Path("model/model.safetensors"))));
  EXPECT_GT(environment.disk_free_bytes, 0);
}

TEST_F(EnvironmentTest, LeavesNothingBehind) {
  InspectEnvironment(spec_, "");
  EXPECT_FALSE(fs::exists(Path("out")));
  int entries = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(root_)) ++entries;
  EXPECT_EQ(entries, 2);  // model and data
}

TEST_F(EnvironmentTest, RefusesAModelDirectoryThatIsNotThere) {
  spec_.set_model(Path("nothing"));
  EXPECT_THAT(Violations(), ElementsAre(absl::StrCat("model: is \"", Path("nothing"),
                                                     "\"; there is no such directory")));
}

TEST_F(EnvironmentTest, NamesEveryMissingModelFileAtOnce) {
  fs::remove(Path("model/config.json"));
  fs::remove(Path("model/model.safetensors"));
  fs::remove(Path("model/tokenizer.json"));
  const auto violations = Violations();
  ASSERT_EQ(violations.size(), 3u);
  EXPECT_THAT(violations[0], ::testing::HasSubstr("config.json"));
  EXPECT_EQ(violations[1], Model("it has no *.safetensors file"));
  EXPECT_EQ(violations[2],
            Model("it has no tokenizer.json (or tokenizer.model, or vocab.json with merges.txt)"));
}

TEST_F(EnvironmentTest, RefusesAModelTypeItDoesNotKnowByName) {
  Write("model/config.json", R"({"model_type": "gpt9_moe"})");
  const auto violations = Violations();
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_THAT(violations[0], ::testing::HasSubstr("gpt9_moe"));
}

TEST_F(EnvironmentTest, RefusesTruncatedSafetensors) {
  Write("model/model.safetensors", Safetensors(kTwoTensors, 20));
  EXPECT_THAT(Violations(),
              ElementsAre(Model("model.safetensors is truncated: its header describes 24 bytes of "
                                "tensors, the file has 20")));
  Write("model/model.safetensors", Safetensors(kTwoTensors, 24).substr(0, 50));
  EXPECT_THAT(Violations(),
              ElementsAre(Model(absl::StrCat("model.safetensors is truncated: its header has ",
                                             strlen(kTwoTensors), " bytes, the file 50"))));
  Write("model/model.safetensors", "abc");
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors is truncated: it has 3 bytes, a safetensors file "
                        "at least 8")));
}

TEST_F(EnvironmentTest, RefusesHeadersWithOverlappingMissingOrWrongOffsets) {
  const auto header = [](const char* a, const char* b) {
    return absl::StrCat(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":)", a,
                        R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)", b, "}}");
  };
  Write("model/model.safetensors", Safetensors(header("[0,16]", "[12,20]"), 20));
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors is damaged: tensor \"b\" overlaps the one before it")));
  Write("model/model.safetensors", Safetensors(header("[0,16]", "[20,28]"), 28));
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors is damaged: bytes 16 to 20 belong to no tensor")));
  Write("model/model.safetensors", Safetensors(header("[0,16]", "[24,16]"), 24));
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors is damaged: tensor \"b\" has no valid data_offsets")));
  Write("model/model.safetensors", Safetensors(header("[0,16]", "[-16,8]"), 24));
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors is damaged: tensor \"b\" has no valid data_offsets")));
  Write("model/model.safetensors", Safetensors("[1, 2]", 0));
  EXPECT_THAT(Violations(),
              ElementsAre(Model("model.safetensors is damaged: its header is not a JSON object")));
  Write("model/model.safetensors", std::string(64, '\xff'));
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors is no safetensors file: its first 8 bytes claim a "
                        "header of 18446744073709551615 bytes")));
}

TEST_F(EnvironmentTest, RefusesAnIndexThatNamesAShardThatIsMissing) {
  Write("model/model.safetensors.index.json",
        R"({"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}})");
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors.index.json names model-00002-of-00002.safetensors, "
                        "which is missing")));
  Write("model/model.safetensors.index.json", R"({"weight_map": {"a": "../../etc/passwd"}})");
  EXPECT_THAT(
      Violations(),
      ElementsAre(Model("model.safetensors.index.json is damaged: the file of tensor \"a\" is "
                        "not a plain file name")));
}

TEST_F(EnvironmentTest, RefusesDataFilesThatAreMissingOrEmpty) {
  fs::remove(Path("data/train.jsonl"));
  Write("data/eval.jsonl", "");
  EXPECT_THAT(
      Violations(),
      ElementsAre(
          absl::StrCat("data.train: is \"", Path("data/train.jsonl"), "\"; there is no such file"),
          absl::StrCat("data.eval: is \"", Path("data/eval.jsonl"), "\"; the file is empty")));
  spec_.mutable_data()->set_train(Path("data"));
  spec_.mutable_data()->clear_eval();
  EXPECT_THAT(Violations(),
              ElementsAre(absl::StrCat("data.train: is \"", Path("data"), "\"; it is not a file")));
}

TEST_F(EnvironmentTest, RefusesSequencesLongerThanTheModelsAndExpertParallelThatDoesNotDivide) {
  spec_.mutable_data()->set_sequence_length(513);
  spec_.mutable_mesh()->set_expert_parallel(3);
  EXPECT_THAT(
      Violations(),
      ElementsAre(
          "data.sequence_length: is 513; must be at most the model's max_position_embeddings (512)",
          "mesh.expert_parallel: is 3; must divide the model's number of experts (8)"));
  spec_.mutable_data()->clear_sequence_length();
  spec_.mutable_mesh()->set_expert_parallel(4);
  EXPECT_THAT(Violations(),
              ElementsAre("data.sequence_length: is 4096 by default; must be at most the model's "
                          "max_position_embeddings (512)"));
}

TEST_F(EnvironmentTest, RefusesAnOutputThatCannotBeWritten) {
  Write("file", "x");
  spec_.mutable_checkpoint()->set_output(Path("file/out"));
  EXPECT_THAT(Violations(),
              ElementsAre(Output(absl::StrCat("\"", Path("file"), "\" is not a directory"))));
  // Nobody, not even root, makes directories there.
  spec_.mutable_checkpoint()->set_output("/proc/switchyard/out");
  const auto violations = Violations();
  ASSERT_EQ(violations.size(), 1u);
  EXPECT_THAT(violations[0], ::testing::StartsWith(Output("\"/proc\" cannot be written (")));
}

TEST_F(EnvironmentTest, RefusesAnOutputInsideTheModelAlsoThroughALink) {
  fs::create_directory_symlink(Path("model"), Path("link"));
  spec_.mutable_checkpoint()->set_output(Path("link/out"));
  EXPECT_THAT(Violations(),
              ElementsAre(absl::StrCat("checkpoint.output: is \"", Path("link/out"),
                                       "\", inside the model directory "
                                       "\"",
                                       Path("model"), "\"; name a directory of the job's own")));
}

TEST_F(EnvironmentTest, RefusesAnOutputThatHoldsAnotherJobsResult) {
  Write("out/job/final/training_state/state.json",
        R"({"job_uid": "uid-1", "step": 7, "epoch": 1})");
  EXPECT_THAT(Violations("uid-2"),
              ElementsAre(Output("it holds another job's result (final of job uid-1); choose "
                                 "another directory or move that away")));
  EXPECT_THAT(Violations(""),
              ElementsAre(Output("it holds another job's result (final of job uid-1); choose "
                                 "another directory or move that away")));
  EXPECT_THAT(Violations("uid-1"), IsEmpty());
}

TEST_F(EnvironmentTest, RefusesAnOutputWithCheckpointsOfAnotherJobOrOfNobody) {
  Write("out/job/checkpoints/step-10/training_state/state.json",
        R"({"job_uid": "uid-1", "step": 10, "epoch": 1})");
  Write("out/job/checkpoints/step-20/training_state/state.json",
        R"({"job_uid": "uid-9", "step": 20, "epoch": 2})");
  EXPECT_THAT(Violations("uid-1"),
              ElementsAre(Output("it holds another job's result (checkpoints/step-20 of job "
                                 "uid-9); choose another directory or move that away")));
  fs::remove_all(Path("out/job/checkpoints/step-20"));
  Write("out/job/final/config.json", "{}");
  EXPECT_THAT(Violations("uid-1"),
              ElementsAre(Output("it holds something else (final); choose another directory or "
                                 "move that away")));
}

}  // namespace
}  // namespace switchyard::coordinator
