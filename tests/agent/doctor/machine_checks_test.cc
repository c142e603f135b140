#include "worker/agent/doctor/machine_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/agent/support/temporary_directory.h"

namespace switchyard::agent {
namespace {

using ::testing::HasSubstr;

GpuMachine TwoGpus() {
  GpuMachine machine;
  for (int i = 0; i < 2; ++i) {
    GpuHealth gpu;
    gpu.index = i;
    gpu.product = "Test";
    gpu.memory_bytes = int64_t{80} << 30;
    gpu.used_bytes = 0;
    gpu.celsius = 40;
    machine.gpus.push_back(gpu);
  }
  machine.by_nvlink = machine.by_peer = {{true, true}, {true, true}};
  return machine;
}

TEST(GpuChecksTest, HealthyGpusWithNvlinkAreOk) {
  for (const HealthCheck& check : CheckGpus(TwoGpus())) EXPECT_EQ(check.health, Health::kOk);
  EXPECT_EQ(CheckGpus(TwoGpus()).size(), 3u);
}

TEST(GpuChecksTest, EachAilmentIsNamedWithItsCure) {
  struct Case {
    void (*make_ill)(GpuHealth&);
    Health health;
    const char* message;
    const char* fix;
  };
  const Case cases[] = {
      {[](GpuHealth& g) { g.error = "the driver cannot reach it"; }, Health::kFailed,
       "GPU 0: the driver cannot reach it", "Xid"},
      {[](GpuHealth& g) { g.ecc_uncorrected = 2; }, Health::kFailed, "2 uncorrected memory errors",
       "node drain"},
      {[](GpuHealth& g) { g.rows_failed = 1; }, Health::kFailed, "could not be remapped",
       "have the GPU changed"},
      {[](GpuHealth& g) { g.rows_pending = 1; }, Health::kWarning, "waits for a reset", "restart"},
      {[](GpuHealth& g) { g.slowdown = 0x40; }, Health::kWarning,
       "clocks are lowered (reasons 0x40", "PERFORMANCE"},
      {[](GpuHealth& g) { g.celsius = 93; }, Health::kWarning, "93 C", "cooling"},
      {[](GpuHealth& g) { g.nvlinks = 18, g.nvlinks_active = 12; }, Health::kWarning,
       "12 of 18 NVLinks", "nvlink -s"},
  };
  for (const Case& one : cases) {
    GpuMachine machine = TwoGpus();
    one.make_ill(machine.gpus[0]);
    const HealthCheck check = CheckGpus(machine)[0];
    EXPECT_EQ(check.health, one.health) << one.message;
    EXPECT_THAT(check.message, HasSubstr(one.message));
    EXPECT_THAT(check.fix, HasSubstr(one.fix));
  }
}

TEST(GpuChecksTest, PairsWithoutNvlinkAreNamed) {
  GpuMachine machine = TwoGpus();
  machine.by_nvlink[0][1] = machine.by_nvlink[1][0] = false;
  EXPECT_EQ(CheckGpus(machine)[2].message, "GPUs 0-1 are connected by PCIe only");
  machine.by_peer[0][1] = machine.by_peer[1][0] = false;
  EXPECT_THAT(CheckGpus(machine)[2].message, HasSubstr("cannot reach each other's memory"));
}

TEST(GpuChecksTest, AMachineWithoutADriverIsNotIll) {
  GpuMachine machine;
  machine.why = "no NVIDIA driver is installed";
  EXPECT_EQ(CheckGpus(machine)[0].health, Health::kSkipped);
  machine.why = "the NVIDIA driver does not answer";
  EXPECT_EQ(CheckGpus(machine)[0].health, Health::kFailed);
}

TEST(MachineChecksTest, SharedMemoryAndDiskSayWhatIsThereAndWhatIsMissing) {
  TemporaryDirectory directory;
  EXPECT_EQ(CheckSharedMemory(directory.path(), 1).health, Health::kOk);
  const HealthCheck small = CheckSharedMemory(directory.path(), 1 << 24);
  EXPECT_EQ(small.health, Health::kWarning);
  EXPECT_THAT(small.fix, HasSubstr("remount,size"));
  EXPECT_EQ(CheckSharedMemory(directory.path() + "/none", 1).health, Health::kFailed);
  EXPECT_THAT(CheckDisk(directory.path() + "/not/yet/there").message, HasSubstr(" free"));
}

TEST(MachineChecksTest, ATrainerMustStartAndBeOfThisVersion) {
  TemporaryDirectory directory;
  const std::string trainer = directory.path() + "/trainer";
  const auto write = [&](const std::string& script) {
    std::ofstream(trainer) << "#!/bin/sh\n" << script << "\n";
    chmod(trainer.c_str(), 0755);
  };
  EXPECT_THAT(CheckTrainer(trainer).message, HasSubstr("is not there"));
  write("echo 0.0.7");
  EXPECT_THAT(CheckTrainer(trainer).message, HasSubstr("is version 0.0.7, the agent"));
  write("echo libtorch.so: cannot open shared object file >&2; exit 127");
  EXPECT_THAT(CheckTrainer(trainer).message, HasSubstr("does not start: libtorch.so"));
  write("echo " SWITCHYARD_VERSION);
  EXPECT_EQ(CheckTrainer(trainer).health, Health::kOk);
}

}  // namespace
}  // namespace switchyard::agent
