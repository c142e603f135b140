#include "worker/trainer/train/cpu_binding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "common/cpu_list.h"

namespace switchyard::trainer {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int> Range(int first, int last) {
  std::vector<int> cpus(static_cast<size_t>(last - first + 1));
  std::iota(cpus.begin(), cpus.end(), first);
  return cpus;
}

TEST(ShareOfCpusTest, GpusOfOneNumaNodeShareItsCoresWithTheirHyperthreads) {
  const std::vector<int> first = ParseCpuList("0-31,64-95"), second = ParseCpuList("32-63,96-127");
  const std::vector<std::vector<int>> near = {first, first, second, first, first};
  const std::vector<int> usable = Range(0, 127);
  EXPECT_EQ(CpuListText(ShareOfCpus(near, 0, usable)), "0-7,64-71");
  EXPECT_EQ(CpuListText(ShareOfCpus(near, 1, usable)), "8-15,72-79");
  EXPECT_EQ(CpuListText(ShareOfCpus(near, 4, usable)), "24-31,88-95");
  EXPECT_EQ(CpuListText(ShareOfCpus(near, 2, usable)), "32-63,96-127");
}

TEST(ShareOfCpusTest, SharesAreDisjointAndLeaveNoCpuIdleWhateverTheirNumber) {
  for (int gpus = 1; gpus <= 16; ++gpus) {
    const std::vector<std::vector<int>> near(static_cast<size_t>(gpus), Range(3, 23));
    std::vector<int> all;
    for (int i = 0; i < gpus; ++i) {
      const std::vector<int> share = ShareOfCpus(near, static_cast<size_t>(i), Range(0, 63));
      EXPECT_GE(share.size(), static_cast<size_t>(21 / gpus));
      all.insert(all.end(), share.begin(), share.end());
    }
    EXPECT_EQ(all, Range(3, 23)) << gpus;
  }
}

TEST(ShareOfCpusTest, OnlyUsableCpusAreSharedAndTooFewAreSharedByAll) {
  const std::vector<std::vector<int>> near(4, Range(0, 63));
  EXPECT_EQ(CpuListText(ShareOfCpus(near, 1, Range(16, 23))), "18-19");
  EXPECT_EQ(CpuListText(ShareOfCpus(near, 3, {16, 17})), "16-17");
  EXPECT_EQ(CpuListText(ShareOfCpus(near, 0, {2, 9, 30, 31, 40, 41, 42, 43})), "2,9");
  EXPECT_THAT(ShareOfCpus(near, 0, Range(64, 70)), IsEmpty());
  EXPECT_THAT(ShareOfCpus({{}}, 0, Range(0, 3)), IsEmpty());
}

TEST(BindTest, AThreadAndThoseItStartsStayOnTheirCpus) {
  const std::vector<int> usable = UsableCpus();
  ASSERT_FALSE(usable.empty());
  std::vector<int> seen;
  // In a thread of its own: the binding ends with it.
  std::thread([&] {
    const std::string refused = Bind({usable.back()}, -1);
    EXPECT_EQ(refused, "");
    std::thread([&] { seen = UsableCpus(); }).join();
  }).join();
  EXPECT_THAT(seen, ElementsAre(usable.back()));
  EXPECT_EQ(UsableCpus(), usable);
  std::thread([] { EXPECT_NE(Bind({1023}, -1), ""); }).join();
}

}  // namespace
}  // namespace switchyard::trainer
