#include "coordinator/spec/validate.h"

#include <gmock/gmock.h>

#include <limits>
#include <map>

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

v1::JobSpec GoodSpec() {
  v1::JobSpec spec;
  spec.set_name("foldoc-qa");
  spec.set_model("/models/small-moe");
  spec.mutable_data()->set_train("/data/train.jsonl");
  spec.mutable_data()->set_eval("/data/eval.jsonl.zst");
  spec.mutable_checkpoint()->set_output("/out/foldoc");
  return spec;
}

// "field: description" of every violation.
std::vector<std::string> Violations(const v1::JobSpec& spec) {
  std::vector<std::string> texts;
  for (const auto& v : ValidateSpec(spec)) texts.push_back(v.field + ": " + v.description);
  return texts;
}

TEST(ValidateSpecTest, AcceptsASpecWithNothingButModelDataAndOutput) {
  EXPECT_THAT(Violations(GoodSpec()), IsEmpty());
}

TEST(ValidateSpecTest, AcceptsEverySpecAfterItsDefaultsAreFilled) {
  v1::JobSpec spec = GoodSpec();
  ApplyDefaults(spec);
  EXPECT_THAT(Violations(spec), IsEmpty());
}

TEST(ValidateSpecTest, ReportsEveryViolationAtOnceWithFieldValueAndFix) {
  v1::JobSpec spec;
  spec.set_name("Foldoc QA");
  spec.set_model("models/x");
  spec.set_priority(5000);
  spec.mutable_data()->set_train("/data/train.csv");
  spec.mutable_data()->set_sequence_length(-1);
  spec.mutable_training()->set_epochs(1);
  spec.mutable_training()->set_steps(10);
  spec.mutable_training()->set_learning_rate(-1);
  spec.mutable_training()->set_schedule("cosinus");
  spec.mutable_training()->set_warmup_ratio(1.5);
  spec.mutable_mesh()->set_device("gpu");
  spec.mutable_mesh()->set_ranks(4);
  spec.mutable_mesh()->set_expert_parallel(3);
  spec.mutable_checkpoint()->set_output("/out/../etc");
  spec.mutable_checkpoint()->set_keep(0);
  spec.mutable_restart()->set_max_attempts(0);
  EXPECT_THAT(
      Violations(spec),
      ElementsAre(
          "name: is \"Foldoc QA\"; use 1 to 63 of a-z, 0-9 and \"-\", starting with a letter, not "
          "ending with "
          "\"-\"",
          "priority: is 5000; must be -1000 to 1000",
          "model: is \"models/x\"; must be an absolute path, starting with /",
          "data.train: is \"/data/train.csv\"; the file must end with .jsonl, .jsonl.gz, "
          ".jsonl.zst or .parquet",
          "data.sequence_length: is -1; must be 8 to 1048576",
          "training.steps: is 10 and training.epochs is 1; set one of them, not both",
          "training.learning_rate: is -1; must be greater than 0 and at most 1",
          "training.warmup_ratio: is 1.5; must be at least 0 and at most 1",
          "training.schedule: is \"cosinus\"; must be one of cosine, linear, constant",
          "mesh.device: is \"gpu\"; must be one of auto, cuda, cpu",
          "mesh.expert_parallel: is 3; must divide mesh.ranks (4)",
          "checkpoint.output: is \"/out/../etc\"; must not contain \"..\", write the path it means",
          "checkpoint.keep: is 0; must be 1 to 1000",
          "restart.max_attempts: is 0; must be 1 to 1000"));
}

TEST(ValidateSpecTest, ASequenceLengthOfZeroIsNoDefault) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_data()->set_sequence_length(0);
  EXPECT_THAT(Violations(spec), ElementsAre("data.sequence_length: is 0; must be 8 to 1048576"));
}

TEST(ValidateSpecTest, NamesEveryFieldThatIsMissing) {
  EXPECT_THAT(
      Violations(v1::JobSpec()),
      ElementsAre("name: is empty; use 1 to 63 of a-z, 0-9 and \"-\", starting with a letter, not "
                  "ending with \"-\"",
                  "model: is empty; set it to the absolute path of a Hugging Face model directory",
                  "data.train: is empty; set it to the absolute path of a .jsonl or .parquet file",
                  "checkpoint.output: is empty; set it to the absolute path of the job's output "
                  "directory"));
}

TEST(ValidateSpecTest, RefusesPathsThatEscapeOrHideSomething) {
  const std::map<std::string, std::string> cases = {
      {"/models/../../etc",
       "is \"/models/../../etc\"; must not contain \"..\", write the path it means"},
      {"/models/..", "is \"/models/..\"; must not contain \"..\", write the path it means"},
      {"~/models", "is \"~/models\"; must be an absolute path, starting with /"},
      {std::string("/models\0/x", 10),
       "is \"/models\\000/x\"; a path may not contain NUL or control characters"},
      {"/models\n/x", "is \"/models\\n/x\"; a path may not contain NUL or control characters"},
      {absl::StrCat("/", std::string(5000, 'a')),
       "is 5001 bytes long; a path may have at most 4096"}};
  for (const auto& [path, message] : cases) {
    v1::JobSpec spec = GoodSpec();
    spec.set_model(path);
    EXPECT_THAT(Violations(spec), ElementsAre(absl::StrCat("model: ", message)));
  }
  v1::JobSpec dots = GoodSpec();
  dots.set_model("/models/..hidden/a..b");
  EXPECT_THAT(Violations(dots), IsEmpty());
}

TEST(ValidateSpecTest, AcceptsTheFourDataFormatsAndNoOther) {
  for (const char* path : {"/d/a.jsonl", "/d/a.jsonl.gz", "/d/a.jsonl.zst", "/d/a.parquet"}) {
    v1::JobSpec spec = GoodSpec();
    spec.mutable_data()->set_train(path);
    EXPECT_THAT(Violations(spec), IsEmpty()) << path;
  }
  for (const char* path : {"/d/a.json", "/d/a.txt.gz", "/d/a", "/d/jsonl"}) {
    v1::JobSpec spec = GoodSpec();
    spec.mutable_data()->set_eval(path);
    EXPECT_THAT(Violations(spec), ElementsAre(HasSubstr("the file must end with .jsonl"))) << path;
  }
}

TEST(ValidateSpecTest, RefusesNumbersThatAreNotFinite) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_training()->set_epochs(std::numeric_limits<double>::infinity());
  spec.mutable_training()->set_learning_rate(std::numeric_limits<double>::quiet_NaN());
  spec.mutable_training()->set_max_grad_norm(-std::numeric_limits<double>::infinity());
  EXPECT_THAT(Violations(spec),
              ElementsAre("training.epochs: is inf; must be greater than 0 and at most 10000",
                          "training.learning_rate: is nan; must be greater than 0 and at most 1",
                          "training.max_grad_norm: is -inf; must be at least 0 and at most 1e+09"));
}

TEST(ValidateSpecTest, RefusesAMicroBatchAboveTheGlobalBatch) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_training()->set_global_batch_sequences(8);
  spec.mutable_training()->set_micro_batch_sequences(9);
  EXPECT_THAT(Violations(spec), ElementsAre("training.micro_batch_sequences: is 9; must be at most "
                                            "training.global_batch_sequences (8)"));
}

TEST(ValidateSpecTest, RefusesAnUnknownActivationMemory) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_training()->set_activation_memory("recompute_gate_up");
  EXPECT_THAT(Violations(spec), IsEmpty());
  spec.mutable_training()->set_activation_memory("auto");
  EXPECT_THAT(Violations(spec),
              ElementsAre("training.activation_memory: is \"auto\"; must be one of save_all, "
                          "recompute_rows, recompute_gate_up, recompute_layer"));
}

TEST(ValidateSpecTest, RefusesCompactOptimizerUnderFloat32) {
  const std::string message =
      "training.optimizer: is \"compact\"; under float32 weights only \"exact\" exists, set "
      "training.precision "
      "to \"bfloat16\" or training.optimizer to \"exact\"";
  v1::JobSpec spec = GoodSpec();
  spec.mutable_training()->set_optimizer("compact");
  spec.mutable_mesh()->set_device("cpu");
  EXPECT_THAT(Violations(spec), ElementsAre(message));
  spec.mutable_training()->set_precision("bfloat16");
  EXPECT_THAT(Violations(spec), IsEmpty());
  spec.mutable_training()->set_precision("float32");
  spec.mutable_mesh()->set_device("cuda");
  EXPECT_THAT(Violations(spec), ElementsAre(message));
}

TEST(ValidateSpecTest, RefusesAnEvaluationIntervalWithoutData) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_data()->clear_eval();
  spec.mutable_training()->set_eval_interval_steps(10);
  EXPECT_THAT(Violations(spec),
              ElementsAre("training.eval_interval_steps: is 10 but data.eval is empty; set "
                          "data.eval or remove it"));
}

TEST(ValidateSpecTest, RefusesAnOutputInsideTheModelDirectory) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_checkpoint()->set_output("/models/small-moe/out");
  EXPECT_THAT(
      Violations(spec),
      ElementsAre("checkpoint.output: is \"/models/small-moe/out\", inside the model directory "
                  "\"/models/small-moe\"; name a directory of the job's own"));
  spec.mutable_checkpoint()->set_output("/models/small-moe-out");
  EXPECT_THAT(Violations(spec), IsEmpty());
  spec.mutable_checkpoint()->set_output("//");
  EXPECT_THAT(Violations(spec),
              ElementsAre("checkpoint.output: is \"/\"; name a directory of the job's own"));
}

TEST(ValidateSpecTest, LimitsLabels) {
  v1::JobSpec spec = GoodSpec();
  (*spec.mutable_labels())["team"] = "lex\nicon";
  (*spec.mutable_labels())[std::string(64, 'k')] = "x";
  EXPECT_THAT(
      Violations(spec),
      UnorderedElementsAre(
          "labels[\"team\"]: is \"lex\\nicon\"; values have at most 63 characters, none "
          "of them a control character",
          absl::StrCat("labels: has the key \"", std::string(64, 'k'),
                       "\"; keys have 1 to 63 characters, none of them a control character")));
  for (int i = 0; i < 64; ++i) (*spec.mutable_labels())[absl::StrCat("k", i)] = "v";
  EXPECT_THAT(Violations(spec), ElementsAre("labels: has 66 entries; at most 64 are allowed"));
}

TEST(ValidateSpecTest, RefusesASpecOfFiveMebibytesInOneShortAnswer) {
  v1::JobSpec spec = GoodSpec();
  spec.set_model(absl::StrCat("/", std::string(5 << 20, 'm')));
  const auto violations = Violations(spec);
  EXPECT_THAT(violations, ElementsAre("spec: is 5.00 MiB; must be at most 1.00 MiB"));
}

TEST(ValidateSpecTest, AnswersShortlyWhenAValueIsLong) {
  v1::JobSpec spec = GoodSpec();
  spec.set_name(std::string(100000, 'x'));
  spec.mutable_training()->set_schedule(std::string(100000, 'y'));
  size_t bytes = 0;
  for (const auto& text : Violations(spec)) bytes += text.size();
  EXPECT_THAT(Violations(spec), SizeIs(2));
  EXPECT_LT(bytes, 600u);
}

TEST(ValidateSpecTest, RefusesFieldsThatItDoesNotKnow) {
  // A field number from a newer version, at the top and inside training.
  v1::JobSpec spec = GoodSpec();
  spec.GetReflection()->MutableUnknownFields(&spec)->AddVarint(900, 1);
  auto* training = spec.mutable_training();
  training->GetReflection()->MutableUnknownFields(training)->AddVarint(901, 1);
  EXPECT_THAT(
      Violations(spec),
      ElementsAre(
          "spec: has a field with number 900 that this coordinator does not know; remove it or "
          "upgrade the coordinator",
          "training: has a field with number 901 that this coordinator does not know; remove it "
          "or upgrade the coordinator"));
}

TEST(ApplyDefaultsTest, FillsAndNamesEveryUnsetFieldOnce) {
  v1::JobSpec spec = GoodSpec();
  const auto filled = ApplyDefaults(spec);
  std::map<std::string, std::string> by_field(filled.begin(), filled.end());
  EXPECT_EQ(by_field.size(), filled.size());
  EXPECT_EQ(by_field["training.learning_rate"], "1e-05");
  EXPECT_EQ(by_field["training.epochs"], "1");
  EXPECT_EQ(by_field["data.sequence_length"], "4096");
  EXPECT_EQ(spec.training().beta2(), 0.999);
  EXPECT_EQ(spec.checkpoint().keep(), 2);
  EXPECT_THAT(ApplyDefaults(spec), IsEmpty());
}

TEST(ApplyDefaultsTest, KeepsWhatTheUserSet) {
  v1::JobSpec spec = GoodSpec();
  spec.mutable_training()->set_steps(7);
  spec.mutable_training()->set_weight_decay(0.1);
  spec.mutable_training()->set_warmup_ratio(0);
  const auto filled = ApplyDefaults(spec);
  EXPECT_FALSE(spec.training().has_epochs());
  EXPECT_EQ(spec.training().weight_decay(), 0.1);
  EXPECT_THAT(filled, ::testing::Not(Contains(::testing::Key("training.warmup_ratio"))));
}

TEST(IsValidJobIdTest, FollowsTheNamingRule) {
  for (const char* id : {"a", "foldoc-qa", "a1-2"}) EXPECT_TRUE(IsValidJobId(id)) << id;
  EXPECT_TRUE(IsValidJobId(std::string(63, 'a')));
  for (const char* id : {"", "-a", "a-", "1a", "A", "a_b", "a/b", "..", "a b"}) {
    EXPECT_FALSE(IsValidJobId(id)) << id;
  }
  EXPECT_FALSE(IsValidJobId(std::string(64, 'a')));
}

}  // namespace
}  // namespace switchyard::coordinator
