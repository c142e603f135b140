// Slots from the driver's library, with a stand-in for it.
#include <gmock/gmock.h>

#include <cstdio>

#include "common/health_check.h"
#include "tests/agent/support/agent_process.h"
#include "tests/agent/support/scripted_coordinator.h"

namespace switchyard::agent {
namespace {

// The agent of this test finds the stand-in first.
class GpuInventoryTest : public ::testing::Test {
 protected:
  GpuInventoryTest() { setenv("LD_LIBRARY_PATH", FAKE_NVML_DIR, 1); }
  ~GpuInventoryTest() override { unsetenv("LD_LIBRARY_PATH"); }
  ScriptedCoordinator coordinator;
};

TEST_F(GpuInventoryTest, OffersTheGpusThatAnswerAndShowsARankItsOwnFirst) {
  AgentProcess agent(coordinator.address(), {"--cpu-slots", "0"});
  const v1::Hello hello = coordinator.WaitForHello(1);
  ASSERT_EQ(hello.inventory().slots_size(), 2);
  EXPECT_EQ(hello.inventory().slots(1).device(), "cuda");
  EXPECT_EQ(hello.inventory().slots(1).index(), 1);
  EXPECT_EQ(hello.inventory().slots(1).product(), "NVIDIA Test 80GB");
  EXPECT_EQ(hello.inventory().slots(1).uuid(), "GPU-0000-2");
  EXPECT_EQ(hello.inventory().slots(1).memory_bytes(), int64_t{80} << 30);
  v1::ConnectResponse message;
  auto* start = message.mutable_start_ranks();
  start->set_job_uid("gpu");
  start->set_epoch(1);
  start->add_ranks()->set_slot(1);
  start->set_trainer_config_json(R"({"script": {"0": ["env CUDA_VISIBLE_DEVICES", "exit 0 OK"]}})");
  coordinator.Send(message);
  coordinator.WaitForLog("gpu", 1, 0, "CUDA_VISIBLE_DEVICES=GPU-0000-2,GPU-0000-0\n");
}

TEST_F(GpuInventoryTest, CpuSlotsThatAreAskedForWinOverGpus) {
  AgentProcess agent(coordinator.address());
  EXPECT_EQ(coordinator.WaitForHello(1).inventory().slots(0).device(), "cpu");
}

TEST(GpuDoctorTest, SaysWhichGpusAreIllAndHowTheyAreConnected) {
  setenv("LD_LIBRARY_PATH", FAKE_NVML_DIR, 1);
  FILE* pipe = popen((ProgramPath("switchyard-agent") + " doctor --slots 2").c_str(), "r");
  std::string text;
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) text.push_back(static_cast<char>(c));
  EXPECT_EQ(pclose(pipe), 0);
  unsetenv("LD_LIBRARY_PATH");
  const auto checks = ParseHealthJson(text);
  ASSERT_TRUE(checks.ok()) << text;
  std::string gpus;
  for (const HealthCheck& check : *checks) {
    if (check.name == "gpu" || check.name == "nccl_topology")
      gpus += std::string(HealthWord(check.health)) + " " + check.message + "\n";
  }
  EXPECT_EQ(
      gpus,
      "ok GPU 0 (NVIDIA Test 80GB): 80.0 GiB, 1.00 GiB in use, 41 C\n"
      "failed GPU 1: the driver cannot reach it (NVML code 15)\n"
      "failed GPU 2 (NVIDIA Test 80GB): 3 uncorrected memory errors since the driver's start\n"
      "warning GPUs 0-2 are connected by PCIe only\n");
}

}  // namespace
}  // namespace switchyard::agent
