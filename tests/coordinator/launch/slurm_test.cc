// The Slurm launcher against scripts that answer as Slurm's tools do, and lose answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "common/log.h"
#include "coordinator/launch/run_command.h"
#include "coordinator/launch/slurm_allocator.h"

namespace switchyard::coordinator {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kConfig[] = R"({"coordinator": "head:7070", "work_dir": "/scratch/it's",
  "nodes": {"count": 2, "device": "cuda", "slots": 8, "product": "NVIDIA H200",
            "slot_memory_gib": 140, "cpu_cores": 96},
  "sbatch_arguments": ["--partition=gpu"], "agent_arguments": ["--fabric-interface", "ib0"]})";
const AttemptKey kAttempt = {"0123456789abcdef01234567", 3};
constexpr char kName[] = "switchyard-store-0123456789abcdef01234567-e3";

class SlurmTest : public testing::Test {
 protected:
  void SetUp() override {
    log::SetMinimumLevel(log::Level::kError);
    std::string pattern = (fs::temp_directory_path() / "switchyard-slurm.XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    fs::create_directories(root_ / "jobs");
    fs::create_directories(root_ / "bin");
    const fs::path script =
        fs::path(std::getenv("SWITCHYARD_SOURCE_DIR")) / "tests/coordinator/launch/fake_slurm.sh";
    for (const char* tool : {"squeue", "sacct", "sbatch", "scancel"}) {
      fs::create_symlink(script, root_ / "bin" / tool);
    }
    path_ = std::getenv("PATH");
    setenv("PATH", ((root_ / "bin").string() + ":" + path_).c_str(), 1);
    setenv("FAKE_SLURM", root_.c_str(), 1);
    Write("config.json", kConfig);
    auto config = ReadSlurmConfig((root_ / "config.json").string());
    ASSERT_TRUE(config.ok()) << config.status();
    config_ = *config;
    config_.set_poll_seconds(1);
  }
  void TearDown() override {
    allocator_.reset();
    setenv("PATH", path_.c_str(), 1);
    fs::remove_all(root_);
  }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(root_ / name) << text;
  }
  std::string Read(const std::string& name) {
    std::stringstream text;
    text << std::ifstream(root_ / name).rdbuf();
    return text.str();
  }
  int Count(const std::string& tool) {
    std::stringstream calls(Read("calls"));
    int count = 0;
    for (std::string line; std::getline(calls, line);) count += line.rfind(tool + " ", 0) == 0;
    return count;
  }
  static bool Wait(const std::function<bool()>& condition) {
    for (int i = 0; i < 1000 && !condition(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return condition();
  }
  static Allocation Wanted(bool keep = true) {
    Allocation allocation;
    allocation.attempt = kAttempt;
    allocation.job = "projects/default/jobs/demo";
    allocation.nodes = 2;
    allocation.slots_per_node = 4;
    allocation.keep = keep;
    return allocation;
  }
  void Start() { allocator_ = std::make_unique<SlurmAllocator>(config_); }
  void Want(std::vector<Allocation> allocations) {
    allocator_->Want("store", std::move(allocations));
  }
  bool WaitFor(AllocationState state) {
    return Wait([&] { return allocator_->Look(kAttempt).state == state; });
  }
  AllocationStatus Now() { return allocator_->Look(kAttempt); }

  fs::path root_;
  std::string path_;
  launch::v1::SlurmConfig config_;
  std::unique_ptr<SlurmAllocator> allocator_;
};

TEST_F(SlurmTest, AnAttemptIsOneJobThatStartsAnAgentOnEachNode) {
  Start();
  Want({Wanted()});
  ASSERT_TRUE(Wait([&] { return Now().detail == "Slurm job 101 waits (Resources)"; }));
  EXPECT_EQ(Count("sbatch"), 1);
  const std::string calls = Read("calls");
  for (const char* argument :
       {"--job-name=switchyard-store-0123456789abcdef01234567-e3", "--nodes=2", "--no-requeue",
        "--gpus-per-node=4", "--cpus-per-task=48", "--dependency=singleton", "--partition=gpu"}) {
    EXPECT_THAT(calls, HasSubstr(argument));
  }
  EXPECT_THAT(Read("script.101"),
              AllOf(HasSubstr("srun"), HasSubstr("0123456789abcdef01234567-e3-"),
                    HasSubstr("--for-attempt"), HasSubstr("ib0"), Not(HasSubstr("--cpu-slots"))));
  Write("jobs/101", std::string("RUNNING|None|n[1-2]|") + kName + "\n");
  ASSERT_TRUE(WaitFor(AllocationState::kRunning));
  EXPECT_EQ(Now().detail, "Slurm job 101 runs on n[1-2]");
  Write("jobs/101", std::string("TIMEOUT|TimeLimit|n[1-2]|") + kName + "\n");
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "ALLOCATION_TIME_LIMIT");
}

TEST_F(SlurmTest, TheScriptIsWhatAShellReadsBack) {
  // srun as the cluster's nodes would see it, the agent a program that prints its arguments.
  Write("bin/srun", "#!/bin/sh\nshift 2\nSLURM_PROCID=1 exec \"$@\"\n");
  Write("agent", "#!/bin/sh\nprintf '%s\\n' \"$@\"\n");
  for (const char* program : {"bin/srun", "agent"}) {
    fs::permissions(root_ / program, fs::perms::owner_all);
  }
  config_.set_agent((root_ / "agent").string());
  const auto ran =
      RunCommand({"sh"}, SlurmScript(config_, kName, Wanted()), std::chrono::seconds(20));
  ASSERT_TRUE(ran.ok()) << ran.status();
  EXPECT_EQ(ran->exit_code, 0) << ran->errors;
  EXPECT_THAT(ran->output, HasSubstr("--for-attempt\n0123456789abcdef01234567/3\n"));
  EXPECT_THAT(ran->output, HasSubstr("--node\n0123456789abcdef01234567-e3-1\n"));
  EXPECT_THAT(ran->output, HasSubstr(std::string("--work-dir\n/scratch/it's/") + kName + "-1\n"));
}

TEST_F(SlurmTest, ALostAnswerOfSbatchLeadsToNoSecondJob) {
  Write("trouble", "lost");
  Start();
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kPending));
  EXPECT_EQ(Now().detail, "Slurm job 101 waits (Resources)");
  EXPECT_EQ(Count("sbatch"), 1);
}

TEST_F(SlurmTest, ACoordinatorThatStartsAnewAdoptsWhatRunsAndEndsWhatIsOver) {
  Write("jobs/7", std::string("RUNNING|None|n1|") + kName + "\n");
  Write("jobs/8", "RUNNING|None|n2|switchyard-store-0123456789abcdef01234567-e2\n");
  Write("jobs/9", "RUNNING|None|n3|switchyard-other-0123456789abcdef01234567-e2\n");
  Write("jobs/10", "RUNNING|None|n4|somebody's job\n");
  Start();
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(Count("squeue") + Count("scancel"), 0);  // before the store has spoken
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kRunning));
  EXPECT_TRUE(Wait([&] { return Read("jobs/8").rfind("CANCELLED", 0) == 0; }));
  EXPECT_EQ(Count("sbatch"), 0);
  for (const char* job : {"jobs/9", "jobs/10"}) EXPECT_THAT(Read(job), HasSubstr("RUNNING")) << job;
}

TEST_F(SlurmTest, WhatIsToEndIsCancelledAndThenSeenToBeGone) {
  Start();
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kPending));
  Want({Wanted(/*keep=*/false)});
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_THAT(Read("jobs/101"), HasSubstr("CANCELLED"));
}

TEST_F(SlurmTest, NothingIsSubmittedWhileTheControllerDoesNotAnswer) {
  Write("trouble", "down");
  Start();
  Want({Wanted()});
  ASSERT_TRUE(Wait([&] { return Count("squeue") >= 2; }));
  EXPECT_EQ(Count("sbatch"), 0);
  EXPECT_EQ(Now().state, AllocationState::kUnknown);
  fs::remove(root_ / "trouble");
  ASSERT_TRUE(WaitFor(AllocationState::kPending));
}

TEST_F(SlurmTest, ARefusalEndsTheAttemptWithSlurmsReasonAndIsNotRepeated) {
  Write("trouble", "refuse");
  Start();
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "ALLOCATION_REFUSED");
  EXPECT_THAT(Now().detail, HasSubstr("Invalid partition name specified"));
  const int looks = Count("squeue");
  ASSERT_TRUE(Wait([&] { return Count("squeue") >= looks + 2; }));
  EXPECT_EQ(Count("sbatch"), 1);
}

TEST_F(SlurmTest, AJobThatSqueueHasForgottenIsFoundInTheAccounts) {
  fs::create_directories(root_ / "accounts");
  Write("accounts/55", std::string("NODE_FAIL|None|n1|") + kName + "\n");
  Start();
  Want({Wanted()});
  ASSERT_TRUE(WaitFor(AllocationState::kEnded));
  EXPECT_EQ(Now().code, "NODE_LOST");
  EXPECT_EQ(Count("sbatch"), 0);
}

TEST_F(SlurmTest, AWrongConfigurationIsRefusedWithEveryFault) {
  Write("bad.json", R"({"nodes": {"count": 0, "device": "tpu", "slots": 8, "product": "x",
                        "slot_memory_gib": 1, "cpu_cores": "many", "gpus": 8},
                        "work_dir": "relative", "nodez": 1})");
  const absl::Status bad = ReadSlurmConfig((root_ / "bad.json").string()).status();
  EXPECT_THAT(std::string(bad.message()),
              AllOf(HasSubstr("coordinator is missing: give"), HasSubstr("nodes.count is 0:"),
                    HasSubstr("nodes.device is \"tpu\":"), HasSubstr("nodes.gpus: there is no"),
                    HasSubstr("nodes.cpu_cores is \"many\":"), HasSubstr("nodez: there is no"),
                    HasSubstr("work_dir is \"relative\": give an absolute path"),
                    Not(HasSubstr("nodes.slots"))));
  Write("bad.json", R"({"nodes": )");
  EXPECT_THAT(std::string(ReadSlurmConfig((root_ / "bad.json").string()).status().message()),
              HasSubstr("line 1, column"));
  EXPECT_FALSE(ReadSlurmConfig("/nonexistent").ok());
}

TEST(RunCommandTest, AProgramThatHangsIsKilledAndAMissingOneIsSaid) {
  const auto hung = RunCommand({"sleep", "60"}, "", std::chrono::milliseconds(200));
  EXPECT_EQ(hung.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(RunCommand({"no-such-program"}, "", std::chrono::seconds(1)).status().code(),
            absl::StatusCode::kNotFound);
  const auto echoed = RunCommand({"cat"}, std::string(1 << 20, 'x'), std::chrono::seconds(20));
  ASSERT_TRUE(echoed.ok());
  EXPECT_EQ(echoed->output.size(), size_t{1} << 20);
}

}  // namespace
}  // namespace switchyard::coordinator
