#include "worker/agent/inventory/inventory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/agent/support/temporary_directory.h"
#include "worker/agent/inventory/fabric.h"
#include "worker/agent/inventory/nvml.h"

namespace switchyard::agent {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

class MemoryTest : public ::testing::Test {
 protected:
  MemoryTest() {
    dir.Write("proc/meminfo",
              "MemTotal:       33554432 kB\nMemFree: 1 kB\nMemAvailable:   16777216 kB\n");
  }
  MemoryBytes Usable() { return UsableMemory(dir.path() + "/"); }
  TemporaryDirectory dir;
};

TEST_F(MemoryTest, WithoutControlGroupsItIsTheMachines) {
  EXPECT_EQ(Usable().total, 32 * kGiB);
  EXPECT_EQ(Usable().available, 16 * kGiB);
}

TEST_F(MemoryTest, TheTightestGroupOfVersionTwoCounts) {
  dir.Write("proc/self/cgroup", "0::/system.slice/agent.service\n");
  dir.Write("sys/fs/cgroup/system.slice/agent.service/memory.max", "max\n");
  dir.Write("sys/fs/cgroup/system.slice/memory.max", std::to_string(8 * kGiB));
  dir.Write("sys/fs/cgroup/system.slice/memory.current", std::to_string(5 * kGiB));
  dir.Write("sys/fs/cgroup/system.slice/memory.stat",
            "anon 1\ninactive_file " + std::to_string(2 * kGiB) + "\n");
  EXPECT_EQ(Usable().total, 8 * kGiB);
  EXPECT_EQ(Usable().available, 5 * kGiB);  // page cache comes back
}

TEST_F(MemoryTest, LimitsOfVersionOneCountAndNoLimitIsNone) {
  dir.Write("proc/self/cgroup", "5:cpu:/\n4:memory:/job\n");
  dir.Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  dir.Write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", std::to_string(4 * kGiB));
  dir.Write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", std::to_string(kGiB));
  EXPECT_EQ(Usable().total, 4 * kGiB);
  EXPECT_EQ(Usable().available, 3 * kGiB);
}

TEST(InventoryTest, CpuSlotsShareTheAvailableMemory) {
  const auto inventory = TakeInventory({.cpu_slots = 4, .fabric_address = "10.0.0.7"});
  ASSERT_TRUE(inventory.ok());
  ASSERT_EQ(inventory->slots_size(), 4);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(inventory->slots(i).index(), i);
    EXPECT_EQ(inventory->slots(i).device(), "cpu");
    EXPECT_EQ(inventory->slots(i).uuid(), "");
    EXPECT_EQ(inventory->slots(i).memory_bytes(), inventory->slots(0).memory_bytes());
  }
  EXPECT_LE(inventory->slots(0).memory_bytes() * 4, inventory->memory_bytes());
  EXPECT_EQ(inventory->fabric_address(), "10.0.0.7");
  EXPECT_EQ(inventory->memory_domain(), MemoryDomain());
  EXPECT_THAT(inventory->memory_domain(), ::testing::StartsWith(BootId() + "/"));
}

TEST(InventoryTest, RefusesImpossibleSlotCountsByName) {
  for (int slots : {-1, 5000}) {
    const auto inventory = TakeInventory({.cpu_slots = slots, .fabric_address = ""});
    ASSERT_FALSE(inventory.ok());
    EXPECT_THAT(std::string(inventory.status().message()),
                ::testing::HasSubstr("--cpu-slots is " + std::to_string(slots)));
  }
}

TEST(FabricTest, AnInterfaceGivesItsAddressAndAWrongOneNamesTheRightOnes) {
  EXPECT_EQ(*ChooseFabricAddress("lo", "", ""), "127.0.0.1");
  EXPECT_EQ(*ChooseFabricAddress("lo", "10.9.8.7", ""), "10.9.8.7");
  const auto wrong = ChooseFabricAddress("ib9", "10.9.8.7", "");
  EXPECT_THAT(std::string(wrong.status().message()),
              ::testing::AllOf(::testing::HasSubstr("--fabric-interface is \"ib9\""),
                               ::testing::HasSubstr("lo (127.0.0.1)")));
  EXPECT_FALSE(TakeInventory({.cpu_slots = 1, .fabric_interface = "ib9"}).ok());
}

TEST(FabricTest, WithoutAChoiceThereIsAnAddressInAnyCase) {
  for (const char* coordinator : {"", "127.0.0.1:7070", "[::1]:7070"}) {
    EXPECT_FALSE(ChooseFabricAddress("", "", coordinator)->empty()) << coordinator;
  }
}

TEST(VisibleGpusTest, TheSchedulersChoiceIsTaken) {
  const std::vector<Gpu> gpus = {
      {"GPU-aa", "H200", 1}, {"GPU-bb", "H200", 1}, {"GPU-cc", "H200", 1}};
  const auto uuids = [&](const char* list) {
    std::string text;
    for (const Gpu& gpu : VisibleGpus(gpus, list)) text += gpu.uuid + " ";
    return text;
  };
  EXPECT_EQ(uuids(nullptr), "GPU-aa GPU-bb GPU-cc ");
  EXPECT_EQ(uuids("2,0"), "GPU-cc GPU-aa ");
  EXPECT_EQ(uuids("GPU-bb"), "GPU-bb ");
  EXPECT_EQ(uuids("1,7,0"), "GPU-bb ");  // as CUDA reads it
  EXPECT_EQ(uuids(""), "");
  EXPECT_EQ(uuids("NoDevFiles"), "");
}

}  // namespace
}  // namespace switchyard::agent
