#include "common/units.h"

#include <gtest/gtest.h>

#include <limits>

namespace switchyard {
namespace {

TEST(UnitsTest, PrintsBytesInBinaryUnitsWithoutEverReaching1024) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(17), "17 B");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(512 * kMiB), "512 MiB");
  EXPECT_EQ(FormatBytes(kGiB - 1), "1 GiB");
  EXPECT_EQ(FormatBytes(kGiB * 682 / 10), "68.2 GiB");
  EXPECT_EQ(FormatBytes(340 * kGiB), "340 GiB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::max()), "8192 PiB");
}

TEST(UnitsTest, PrintsDurationsInTheTwoLargestUnits) {
  EXPECT_EQ(FormatDuration(0.35), "350 ms");
  EXPECT_EQ(FormatDuration(8.2), "8.2 s");
  EXPECT_EQ(FormatDuration(59.6), "1 min");
  EXPECT_EQ(FormatDuration(245), "4 min 5 s");
  EXPECT_EQ(FormatDuration(72 * 60), "1 h 12 min");
  EXPECT_EQ(FormatDuration(51 * 3600), "2 d 3 h");
  EXPECT_EQ(FormatDuration(-1), "unknown");
  EXPECT_EQ(FormatDuration(std::numeric_limits<double>::infinity()), "unknown");
}

TEST(UnitsTest, PrintsCountsAndRates) {
  EXPECT_EQ(FormatGrouped(0), "0");
  EXPECT_EQ(FormatGrouped(999), "999");
  EXPECT_EQ(FormatGrouped(12524), "12,524");
  EXPECT_EQ(FormatGrouped(-1234567), "-1,234,567");
  EXPECT_EQ(FormatCount(30'532'122'624), "30.5 B");
  EXPECT_EQ(FormatCount(14'200'000), "14.2 M");
  EXPECT_EQ(FormatCount(950), "950");
  EXPECT_EQ(FormatTokenRate(12524.3), "12,524 tokens/s");
  EXPECT_EQ(FormatTokenRate(3.14), "3.1 tokens/s");
}

TEST(UnitsTest, PrintsNumbersThatReadBackTheSame) {
  EXPECT_EQ(FormatNumber(1e-5), "1e-05");
  EXPECT_EQ(FormatNumber(0.03), "0.03");
  EXPECT_EQ(FormatNumber(1), "1");
  EXPECT_EQ(std::stod(FormatNumber(0.1 + 0.2)), 0.1 + 0.2);
}

}  // namespace
}  // namespace switchyard
