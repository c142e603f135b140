#include "common/units.h"

#include <gtest/gtest.h>

#include <cmath>

namespace switchyard {
namespace {

TEST(UnitsTest, BytesTakeTheUnitThatKeepsThreeFigures) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(812), "812 B");
  EXPECT_EQ(FormatBytes(1024), "1.00 KiB");
  EXPECT_EQ(FormatBytes(1024 * 1024 - 1), "1.00 MiB");
  EXPECT_EQ(FormatBytes(1.5 * (1 << 30)), "1.50 GiB");
  EXPECT_EQ(FormatBytes(340.0 * (1 << 30)), "340 GiB");
}

TEST(UnitsTest, CountsTakeDecimalUnits) {
  EXPECT_EQ(FormatCount(950), "950");
  EXPECT_EQ(FormatCount(999.6), "1.00 K");
  EXPECT_EQ(FormatCount(15254), "15.3 K");
  EXPECT_EQ(FormatCount(30.5e9), "30.5 B");
  EXPECT_EQ(FormatCount(NAN), "NaN");
}

TEST(UnitsTest, DurationsReadAsTheyAreSpoken) {
  EXPECT_EQ(FormatDuration(0.012), "12 ms");
  EXPECT_EQ(FormatDuration(0.4), "0.4 s");
  EXPECT_EQ(FormatDuration(59.6), "1 m 00 s");
  EXPECT_EQ(FormatDuration(185), "3 m 05 s");
  EXPECT_EQ(FormatDuration(7620), "2 h 07 m");
  EXPECT_EQ(FormatDuration(3 * 86400 + 4 * 3600), "3 d 04 h");
}

TEST(UnitsTest, LossesAndRatesSayWhenTheyAreNotFinite) {
  EXPECT_EQ(FormatLoss(3.14159), "3.1416");
  EXPECT_EQ(FormatLoss(INFINITY), "inf");
  EXPECT_EQ(FormatScientific(1e-5), "1.00e-05");
  EXPECT_EQ(FormatScientific(0), "0");
}

TEST(UnitsTest, WholeNumbersAreGroupedByThousands) {
  EXPECT_EQ(FormatGrouped(0), "0");
  EXPECT_EQ(FormatGrouped(999), "999");
  EXPECT_EQ(FormatGrouped(12524), "12,524");
  EXPECT_EQ(FormatGrouped(-123456), "-123,456");
  EXPECT_EQ(FormatGrouped(-1234567), "-1,234,567");
}

TEST(UnitsTest, NumbersReadBackTheSame) {
  EXPECT_EQ(FormatNumber(1e-5), "1e-05");
  EXPECT_EQ(FormatNumber(0.03), "0.03");
  EXPECT_EQ(FormatNumber(1), "1");
  EXPECT_EQ(std::stod(FormatNumber(0.1 + 0.2)), 0.1 + 0.2);
}

}  // namespace
}  // namespace switchyard
