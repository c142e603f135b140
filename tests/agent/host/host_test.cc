// Command lines, line formats and flags: the agent's edges towards its children and its user.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "tests/agent/support/temporary_directory.h"
#include "worker/agent/host/launch.h"
#include "worker/agent/host/lines.h"
#include "worker/agent/host/options.h"
#include "worker/agent/host/runtime.h"

namespace switchyard::agent {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(LinesTest, ReadsTrainerLinesWithNumbersNanAndUnknownFields) {
  const auto line = ParseTrainerLine(
      R"({"step":{"step":7,"loss":"NaN","grad_norm":"Infinity","tokens":"4096","phase_seconds":{"forward":0.5},"new":[1]},"later":1})");
  ASSERT_TRUE(line.ok()) << line.status();
  EXPECT_EQ(line->step().step(), 7);
  EXPECT_EQ(line->step().tokens(), 4096);
  EXPECT_TRUE(std::isnan(line->step().loss()));
  EXPECT_TRUE(std::isinf(line->step().grad_norm()));
  EXPECT_EQ(line->step().phase_seconds().at("forward"), 0.5);
}

TEST(LinesTest, RefusesWhatIsNotALine) {
  for (const char* text : {"", "null", "[]", "3", "{", "{\"step\": 3}",
                           "{\"ready\": {\"rank\": \"x\"}}", "\xff\xfe"}) {
    EXPECT_FALSE(ParseTrainerLine(text).ok()) << text;
  }
}

TEST(LinesTest, WritesAgentLinesOnOneLineWithDefaultsWrittenOut) {
  trainer::v1::AgentLine line;
  line.mutable_rendezvous()->set_id("a\nb");
  EXPECT_EQ(FormatAgentLine(line), R"({"rendezvous":{"id":"a\nb"}})");
  line.mutable_checkpoint_now();
  EXPECT_EQ(FormatAgentLine(line), R"({"checkpoint_now":{"then_stop":false}})");
}

TEST(LinesTest, ReadsLinesOfDataPreparation) {
  EXPECT_EQ(ParsePreparationLine(R"({"progress": 0.25})")->progress(), 0.25);
  const auto result = ParsePreparationLine(
      R"({"result": {"train_dir": "/d/train", "eval_dir": "", "train_sequences": 12, "cached": true, "extra": {}}})");
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_TRUE(result->ready());
  EXPECT_EQ(result->train_dir(), "/d/train");
  EXPECT_EQ(result->train_sequences(), 12);
  EXPECT_TRUE(result->cached());
  const auto error =
      ParsePreparationLine(R"({"error": {"message": "line 3", "user_error": true}})");
  EXPECT_EQ(error->error(), "line 3");
  EXPECT_TRUE(error->user_error());
  for (const char* text :
       {"", "[]", "{}", "{\"result\": 1}", "{\"result\": {\"train_sequences\": \"many\"}}"}) {
    EXPECT_FALSE(ParsePreparationLine(text).ok()) << text;
  }
}

TEST(LaunchTest, ARankGetsItsConfigItsGpuAndItsShareOfTheCores) {
  LaunchOptions options;
  options.work_dir = "/w";
  options.trainer = "/bin/trainer";
  options.cpu_cores = 8;
  options.slots = 4;
  v1::Slot slot;
  slot.set_uuid("GPU-123");
  options.gpus = {"GPU-122", "GPU-123", "GPU-124"};
  const SpawnRequest request = RankRequest(options, slot, {{"job", 2}, 5});
  EXPECT_EQ(request.program, "/bin/trainer");
  EXPECT_EQ(request.directory, "/w/attempts/job/2");
  EXPECT_THAT(request.arguments,
              ElementsAre("run", "--config", "/w/attempts/job/2/train.json", "--rank", "5"));
  EXPECT_THAT(request.environment, Contains("CUDA_VISIBLE_DEVICES=GPU-123,GPU-122,GPU-124"));
  EXPECT_THAT(request.environment, Contains("SWITCHYARD_LOCAL_DEVICE=0"));
  EXPECT_THAT(request.environment, Contains("OMP_NUM_THREADS=2"));
  EXPECT_THAT(request.environment, Contains("GOMP_SPINCOUNT=1000"));
  EXPECT_THAT(request.environment, Contains("SWITCHYARD_ATTEMPT=/w/attempts/job/2"));
}

TEST(LaunchTest, ChildrenInheritListedNamesOnly) {
  setenv("SECRET_TOKEN", "x", 1);
  setenv("NCCL_DEBUG", "WARN", 1);
  const auto environment = InheritedEnvironment();
  EXPECT_THAT(environment, Contains("NCCL_DEBUG=WARN"));
  EXPECT_THAT(environment, Contains(StartsWith("PATH=")));
  EXPECT_THAT(environment, Not(Contains(StartsWith("SECRET_TOKEN"))));
}

TEST(LaunchTest, PreparationPassesEveryOption) {
  LaunchOptions options;
  options.work_dir = "/w";
  options.python = "/venv/bin/python";
  options.prepare_data = "/tools/prepare_data.py";
  v1::PrepareData prepare;
  prepare.set_job_uid("job");
  prepare.set_epoch(1);
  prepare.set_model("/m");
  prepare.set_train("/t.jsonl");
  prepare.set_sequence_length(128);
  prepare.set_output_dir("/o/data");
  EXPECT_THAT(PreparationRequest(options, prepare).arguments,
              ElementsAre("/tools/prepare_data.py", "--model", "/m", "--train", "/t.jsonl",
                          "--sequence-length", "128", "--output-dir", "/o/data", "--max-bad-lines",
                          "0", "--progress-json"));
  prepare.set_eval("/e.jsonl");
  prepare.set_train_on_all_tokens(true);
  prepare.set_disable_packing(true);
  options.self = "/bin/agent";
  options.data_cache_bytes = 1000;
  const SpawnRequest request = PreparationRequest(options, prepare);
  EXPECT_EQ(request.program, "/bin/agent");
  EXPECT_EQ(request.arguments[0], "die-with-parent");
  for (const char* flag :
       {"/venv/bin/python", "--eval", "--train-on-all-tokens", "--disable-packing", "--cache-dir",
        "/w/data-cache", "--cache-bytes", "1000"}) {
    EXPECT_THAT(request.arguments, Contains(flag));
  }
}

TEST(OptionsTest, MakesPathsAbsoluteAndKeepsDefaults) {
  const char* argv[] = {"switchyard-agent", "--work-dir", "relative/dir/", "--node", "n1"};
  AgentOptions options;
  ParseOutcome outcome;
  ASSERT_TRUE(ParseOptions(5, const_cast<char**>(argv), &options, &outcome));
  EXPECT_EQ(options.work_dir, (std::filesystem::current_path() / "relative/dir").string());
  EXPECT_EQ(options.coordinator, "127.0.0.1:7070");
  EXPECT_EQ(options.metrics, "127.0.0.1:9465");
  EXPECT_THAT(options.trainer, ::testing::EndsWith("/switchyard-trainer"));
}

TEST(OptionsTest, AWrongCommandLineIsExitCodeTwo) {
  const char* argv[] = {"switchyard-agent", "--work-dir", "/w", "--unknown"};
  AgentOptions options;
  ParseOutcome outcome;
  EXPECT_FALSE(ParseOptions(4, const_cast<char**>(argv), &options, &outcome));
  EXPECT_EQ(outcome.exit_code, 2);
}

TEST(OptionsTest, NamesAndTrainersAreChecked) {
  AgentOptions options;
  options.trainer = "/bin/true";
  options.python = "sh";  // found in PATH
  options.prepare_data = "/dev/null";
  options.node = "gpu-node.rack-1";
  EXPECT_TRUE(Validate(options).ok()) << Validate(options);
  for (const auto& [flag, path] :
       {std::pair{"--python", &options.python}, {"--prepare-data", &options.prepare_data}}) {
    const std::string good = std::exchange(*path, "/nope");
    EXPECT_THAT(std::string(Validate(options).message()),
                HasSubstr(absl::StrCat(flag, " is \"/nope\", which does not exist")));
    *path = good;
  }
  options.python = "no-such-python";
  EXPECT_FALSE(Validate(options).ok());
  options.python = "sh";
  for (const char* name : {"", "a/b", "sp ace"}) {
    options.node = name;
    EXPECT_THAT(std::string(Validate(options).message()),
                HasSubstr("--node is \"" + std::string(name)));
  }
}

// A directory that looks like what switchyard-install-runtime makes.
void WriteRuntime(const TemporaryDirectory& dir, const std::string& version) {
  for (const char* program : {"bin/switchyard-trainer", "venv/bin/python"}) {
    const std::string path = dir.Write(version + "/" + program, "#!/bin/true\n");
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  dir.Write(version + "/runtime.json", "{\"version\": \"" + version + "\"}");
}

TEST(RuntimeTest, ProgramsComeFromWhereTheLinkLeadsAtTheStart) {
  TemporaryDirectory dir;
  WriteRuntime(dir, "1.2.3");
  std::filesystem::create_symlink("1.2.3", dir / "current");
  const std::string link = dir / "current";
  const char* argv[] = {"switchyard-agent", "--work-dir",      "/w", "--runtime", link.c_str(),
                        "--python",         "/usr/bin/python3"};
  AgentOptions options;
  ParseOutcome outcome;
  ASSERT_TRUE(ParseOptions(7, const_cast<char**>(argv), &options, &outcome));
  const std::string real = std::filesystem::canonical(dir / "1.2.3").string();
  EXPECT_EQ(options.trainer, real + "/bin/switchyard-trainer");
  EXPECT_EQ(options.prepare_data, real + "/tools/prepare_data.py");
  EXPECT_EQ(options.python, "/usr/bin/python3");  // given by hand
}

TEST(RuntimeTest, OtherVersionsAndHalfInstalledOnesAreRefusedWithTheFix) {
  TemporaryDirectory dir;
  WriteRuntime(dir, "1.2.3");
  EXPECT_TRUE(CheckRuntime(dir / "1.2.3", "1.2.3").ok());
  const absl::Status other = CheckRuntime(dir / "1.2.3", "1.3.0");
  EXPECT_THAT(std::string(other.message()),
              AllOf(HasSubstr("of version 1.2.3, this agent of 1.3.0"),
                    HasSubstr("switchyard-install-runtime")));
  std::filesystem::remove(dir / "1.2.3/bin/switchyard-trainer");
  EXPECT_EQ(CheckRuntime(dir / "1.2.3", "1.2.3").code(), absl::StatusCode::kNotFound);
  dir.Write("1.2.3/runtime.json", "[1]");
  EXPECT_THAT(std::string(CheckRuntime(dir / "1.2.3", "1.2.3").message()),
              HasSubstr("names no version"));
  std::filesystem::remove(dir / "1.2.3/runtime.json");
  EXPECT_THAT(std::string(CheckRuntime(dir / "1.2.3", "1.2.3").message()),
              HasSubstr("has no runtime.json"));
}

TEST(LaunchTest, TheFabricInterfaceReplacesAnInheritedOne) {
  setenv("NCCL_SOCKET_IFNAME", "eth7", 1);
  LaunchOptions options;
  v1::Slot slot;
  EXPECT_THAT(RankRequest(options, slot, {{"job", 1}, 0}).environment,
              Contains("NCCL_SOCKET_IFNAME=eth7"));
  options.fabric_interface = "ib0";
  const auto environment = RankRequest(options, slot, {{"job", 1}, 0}).environment;
  unsetenv("NCCL_SOCKET_IFNAME");
  EXPECT_THAT(environment, Contains("NCCL_SOCKET_IFNAME==ib0"));
  EXPECT_THAT(environment, Not(Contains("NCCL_SOCKET_IFNAME=eth7")));
}

}  // namespace
}  // namespace switchyard::agent
