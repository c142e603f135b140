#include "coordinator/cli/spec_file.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/suggest.h"
#include "coordinator/cli/yaml_to_proto.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kSpec[] = R"(# a whole spec
name: foldoc-qa
labels: {team: language, cost-center: "0042"}
priority: -5
model: models/qwen
data:
  train: train.jsonl
  eval: /data/eval.jsonl
  sequence_length: 4096
  train_on_all_tokens: true
training:
  epochs: 1.5
  global_batch_sequences: 64
  learning_rate: 1.0e-5
  seed: 9007199254740993
  schedule: linear
mesh: {device: cpu, ranks: 4, expert_parallel: 2}
checkpoint: {output: ../out/, interval_steps: 200, keep: 0}
restart:
  max_attempts: 3
)";

v1::JobSpec Parse(const std::string& text) {
  const auto spec = ParseSpec(text, "/home/user/jobs", "job.yaml");
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : v1::JobSpec();
}

std::string Refusal(const std::string& text) {
  const auto spec = ParseSpec(text, "/home/user/jobs", "job.yaml");
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(spec.status().message());
}

TEST(SpecFileTest, ALengthOfZeroIsToldToTheCoordinatorWhichRefusesIt) {
  EXPECT_TRUE(Parse("data: {sequence_length: 0}").data().has_sequence_length());
  EXPECT_FALSE(Parse("data: {train: /data/t.jsonl}").data().has_sequence_length());
}

TEST(SpecFileTest, ReadsEveryKindOfField) {
  const v1::JobSpec spec = Parse(kSpec);
  EXPECT_EQ(spec.name(), "foldoc-qa");
  EXPECT_EQ(spec.labels().at("cost-center"), "0042");
  EXPECT_EQ(spec.priority(), -5);
  EXPECT_EQ(spec.data().sequence_length(), 4096);
  EXPECT_TRUE(spec.data().train_on_all_tokens());
  EXPECT_EQ(spec.training().epochs(), 1.5);
  EXPECT_EQ(spec.training().learning_rate(), 1e-5);
  EXPECT_EQ(spec.training().seed(), 9007199254740993);
  EXPECT_FALSE(spec.training().has_steps());
  EXPECT_EQ(spec.mesh().ranks(), 4);
  EXPECT_TRUE(spec.checkpoint().has_keep());
  EXPECT_EQ(spec.checkpoint().keep(), 0);
  EXPECT_EQ(spec.restart().max_attempts(), 3);
}

TEST(SpecFileTest, MakesRelativePathsAbsoluteAgainstTheFilesDirectory) {
  const v1::JobSpec spec = Parse(kSpec);
  EXPECT_EQ(spec.model(), "/home/user/jobs/models/qwen");
  EXPECT_EQ(spec.data().train(), "/home/user/jobs/train.jsonl");
  EXPECT_EQ(spec.data().eval(), "/data/eval.jsonl");
  EXPECT_EQ(spec.checkpoint().output(), "/home/user/out");
}

TEST(SpecFileTest, ReadsTheJsonThatProtobufWritesForTheSameSpec) {
  const v1::JobSpec spec = Parse(kSpec);
  for (bool snake : {false, true}) {
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = snake;
    options.add_whitespace = snake;
    std::string json;
    ASSERT_TRUE(google::protobuf::util::MessageToJsonString(spec, &json, options).ok());
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(Parse(json), spec)) << json;
  }
}

TEST(SpecFileTest, ReadsJsonThatIsIndentedByTabs) {
  EXPECT_EQ(
      Parse("{\n\t\"name\": \"a\",\n\t\"data\": {\n\t\t\"train\": \"/t\"\n\t}\n}\n").data().train(),
      "/t");
}

TEST(SpecFileTest, RefusesAnUnknownFieldByPathAndSuggestsTheNearest) {
  EXPECT_THAT(
      Refusal("training:\n  learning_rat: 1\n"),
      HasSubstr("training.learning_rat: unknown field; did you mean \"learning_rate\"? (line 2)"));
  EXPECT_THAT(Refusal("mdoel: x\n"), HasSubstr("did you mean \"model\"?"));
}

TEST(SpecFileTest, ARightNameAtTheWrongLevelIsSuggestedWithItsPath) {
  EXPECT_THAT(Refusal("learning_rate: 1\n"), HasSubstr("did you mean \"training.learning_rate\"?"));
  EXPECT_THAT(Refusal("training: {keep: 1}\n"), HasSubstr("did you mean \"checkpoint.keep\"?"));
}

TEST(SpecFileTest, SuggestsNothingWhenNothingIsNear) {
  EXPECT_THAT(Refusal("xyzzyplugh: 1\n"), HasSubstr("xyzzyplugh: unknown field (line 1)"));
}

TEST(SpecFileTest, ReportsAllProblemsAtOnceWithTheirLines) {
  const std::string text = Refusal(
      "name: a\n"
      "priority: high\n"
      "data:\n"
      "  sequence_length: 3000000000\n"
      "  train_on_all_tokens: yes\n"
      "training:\n"
      "  steps: 1.5\n"
      "  learning_rate: .nan\n"
      "mesh: [1, 2]\n"
      "checkpoint:\n"
      "  keep: 1\n"
      "  keep: 2\n");
  EXPECT_THAT(
      text,
      AllOf(HasSubstr("priority: is \"high\"; must be a whole number (line 2)"),
            HasSubstr("data.sequence_length: is \"3000000000\"; must be a whole number of 32 bits"),
            HasSubstr("data.train_on_all_tokens: is \"yes\"; must be true or false (line 5)"),
            HasSubstr("training.steps: is \"1.5\"; must be a whole number (line 7)")));
  EXPECT_THAT(
      text,
      AllOf(HasSubstr("training.learning_rate: is \".nan\"; must be a finite number (line 8)"),
            HasSubstr("mesh: is a list; must be a mapping (line 9)"),
            HasSubstr("checkpoint.keep: is given twice; keep one (line 12)")));
}

TEST(SpecFileTest, WholeNumbersMayBeWrittenWithAnExponent) {
  EXPECT_EQ(Parse("training: {steps: 1e3}").training().steps(), 1000);
  EXPECT_EQ(Parse("training: {steps: \"12\"}").training().steps(), 12);
}

TEST(SpecFileTest, NullLeavesAFieldUnset) {
  EXPECT_FALSE(Parse("training: {steps: null, epochs: ~}").training().has_steps());
  EXPECT_FALSE(Parse("name: a\ndata:\n").has_data());
}

TEST(SpecFileTest, NamesLineAndColumnOfASyntaxError) {
  EXPECT_THAT(Refusal("name: a\ndata: {train: [\n"), HasSubstr("job.yaml, line "));
  EXPECT_THAT(Refusal("{\"name\": \"a\""), HasSubstr("job.yaml, line "));
}

TEST(SpecFileTest, RefusesWhatIsNotOneMapping) {
  EXPECT_THAT(Refusal(""), HasSubstr("job.yaml is empty"));
  EXPECT_THAT(Refusal("# only a comment\n"), HasSubstr("job.yaml is empty"));
  EXPECT_THAT(Refusal("- a\n- b\n"), HasSubstr("spec: is a list; must be a mapping"));
  EXPECT_THAT(Refusal("hello"), HasSubstr("must be a mapping"));
  EXPECT_THAT(Refusal("name: a\n---\nname: b\n"), HasSubstr("line 3: the spec ends before this"));
  // A bracket too many, from which YAML::LoadAll never comes back.
  EXPECT_THAT(Refusal("{\"name\": \"a\"},\n\"model\": \"/m\"}"),
              HasSubstr("line 1: the spec ends before this"));
  EXPECT_THAT(Refusal("? [a]\n: b\n"), HasSubstr("a key that is not text"));
}

TEST(SpecFileTest, RefusesTextThatIsNotUtf8) {
  EXPECT_THAT(Refusal("name: a\nmodel: /m\xff\n"), HasSubstr("line 2: is not UTF-8"));
  const std::string utf16("n\0:\0 \0a\0", 8);
  EXPECT_THAT(Refusal(utf16), HasSubstr("line 1: is not UTF-8"));
}

TEST(SpecFileTest, RefusesATildeThatNoShellExpanded) {
  EXPECT_THAT(Refusal("model: ~/models/qwen\n"),
              HasSubstr("model: is \"~/models/qwen\"; write the home directory out"));
}

TEST(SpecFileTest, DeepNestingAndCyclesEndInAMessage) {
  Refusal(std::string(100000, '['));
  EXPECT_THAT(Refusal("mesh: &a {ranks: *a}\n"), HasSubstr("mesh.ranks: is a mapping"));
}

class SpecFileOnDiskTest : public ::testing::Test {
 protected:
  SpecFileOnDiskTest() {
    char pattern[] = "/tmp/switchyard-spec-XXXXXX";
    directory_ = mkdtemp(pattern);
  }
  ~SpecFileOnDiskTest() override { std::filesystem::remove_all(directory_); }
  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = absl::StrCat(directory_, "/", name);
    std::ofstream(path) << text;
    return path;
  }
  std::string directory_;
};

TEST_F(SpecFileOnDiskTest, PathsAreRelativeToTheFileNotToTheWorkingDirectory) {
  const auto spec = ReadSpecFile(Write("job.yaml", "model: m\n"));
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->model(), absl::StrCat(directory_, "/m"));
}

TEST_F(SpecFileOnDiskTest, RefusesASpecOfFiveMebibytesWithItsSizeAndTheLimit) {
  const auto spec = ReadSpecFile(Write("big.yaml", "name: " + std::string(5 << 20, 'x')));
  EXPECT_EQ(spec.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(spec.status().message()),
              HasSubstr("big.yaml is 5.00 MiB; a job spec may have at most 1.00 MiB"));
}

TEST_F(SpecFileOnDiskTest, SaysWhyAFileCannotBeRead) {
  EXPECT_THAT(std::string(ReadSpecFile(directory_ + "/none.yaml").status().message()),
              HasSubstr("none.yaml: No such file or directory"));
  EXPECT_THAT(std::string(ReadSpecFile(directory_).status().message()),
              HasSubstr("is a directory"));
}

TEST(FieldPathsTest, TheFieldsThatTheCliTreatsAsPathsExist) {
  const auto paths = FieldPaths(*v1::JobSpec::descriptor());
  for (const char* path : {"model", "data.train", "data.eval", "checkpoint.output"}) {
    EXPECT_THAT(paths, ::testing::Contains(path));
  }
}

TEST(SuggestTest, CountsSwapsAsOneEdit) {
  EXPECT_EQ(EditDistance("model", "mdoel"), 1);
  EXPECT_EQ(EditDistance("", "abc"), 3);
  EXPECT_EQ(EditDistance("Model", "model"), 0);
  EXPECT_EQ(NearestName("batch", {"seed", "global_batch_sequences"}), "global_batch_sequences");
}

}  // namespace
}  // namespace switchyard::coordinator
