// Numbers for people: bytes, counts, times. Used by plan texts, the CLI and the report.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

inline constexpr int64_t kKiB = int64_t{1} << 10;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;

// "812 B", "1.5 GiB": binary units, three figures.
std::string FormatBytes(double bytes);
// "950", "15.3 K", "1.24 M": decimal units, three figures.
std::string FormatCount(double count);
// "0.4 s", "42 s", "3 m 05 s", "2 h 07 m", "3 d 04 h".
std::string FormatDuration(double seconds);
// Four decimals for losses; "NaN" and "inf" as they are.
std::string FormatLoss(double loss);
// "1.0e-05", for learning rates and other small numbers.
std::string FormatScientific(double value);
// "12,524".
std::string FormatGrouped(int64_t value);
// Shortest text that reads back as the same double: "1e-05", "0.03", "1".
std::string FormatNumber(double value);

}  // namespace switchyard
