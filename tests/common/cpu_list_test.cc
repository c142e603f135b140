#include "common/cpu_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(CpuListTest, ReadsAndWritesTheKernelsForm) {
  EXPECT_THAT(ParseCpuList("0-3,8,10-11\n"), ElementsAre(0, 1, 2, 3, 8, 10, 11));
  EXPECT_THAT(ParseCpuList("5"), ElementsAre(5));
  EXPECT_EQ(CpuListText({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
  EXPECT_EQ(CpuListText({}), "");
  for (const char* wrong : {"", "\n", "a", "3-1", "-1", "0-", "0-100000000"})
    EXPECT_THAT(ParseCpuList(wrong), IsEmpty()) << wrong;
}

TEST(CpuListTest, ThisThreadMayUseAtLeastOneCpu) {
  EXPECT_THAT(UsableCpus(), ::testing::Not(IsEmpty()));
  EXPECT_EQ(ParseCpuList(CpuListText(UsableCpus())), UsableCpus());
}

}  // namespace
}  // namespace switchyard
