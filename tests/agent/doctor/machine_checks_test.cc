#include "worker/agent/doctor/machine_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "common/cpu_list.h"
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

// A machine's PCI devices as sysfs shows them.
void AddPciDevice(const std::string& sysfs, const std::string& address, const std::string& vendor,
                  const std::string& device_class, const std::string& cpus) {
  const std::string directory = sysfs + "/bus/pci/devices/" + address;
  std::filesystem::create_directories(directory);
  std::ofstream(directory + "/vendor") << vendor << "\n";
  std::ofstream(directory + "/class") << device_class << "\n";
  std::ofstream(directory + "/local_cpulist") << cpus << "\n";
}

TEST(GpuCpusTest, AGpuWhoseCpusThisProcessMayNotUseIsNamed) {
  const TemporaryDirectory directory;
  const std::string sysfs = directory.path();
  EXPECT_EQ(CheckGpuCpus(sysfs).health, Health::kSkipped);
  AddPciDevice(sysfs, "0000:00:05.0", "0x10de", "0x020000", "1000-1001");  // a network card
  AddPciDevice(sysfs, "0000:00:06.0", "0x8086", "0x030000", "1000-1001");
  EXPECT_EQ(CheckGpuCpus(sysfs).health, Health::kSkipped);

  AddPciDevice(sysfs, "0000:1b:00.0", "0x10de", "0x030200", "0-1023");
  AddPciDevice(sysfs, "0000:2b:00.0", "0x10de", "0x030200", "");
  const HealthCheck good = CheckGpuCpus(sysfs);
  EXPECT_EQ(good.health, Health::kOk);
  EXPECT_THAT(good.message, HasSubstr("0000:1b:00.0: " + CpuListText(UsableCpus())));

  AddPciDevice(sysfs, "0000:9b:00.0", "0x10de", "0x030200", "1000-1001");
  const HealthCheck bad = CheckGpuCpus(sysfs);
  EXPECT_EQ(bad.health, Health::kWarning);
  EXPECT_THAT(bad.message, HasSubstr("no CPU near 0000:9b:00.0 (1000-1001)"));
  EXPECT_THAT(bad.fix, HasSubstr("CPUAffinity"));
}

}  // namespace
}  // namespace switchyard::agent
