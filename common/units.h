// Quantities as people read them: bytes, durations, rates, counts.
//
// For plans, tables, reports and error messages. Never parsed back: machine-readable output carries plain
// numbers.
#pragma once

#include <cstdint>
#include <string>

namespace switchyard {

inline constexpr int64_t kKiB = int64_t{1} << 10;
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;

// "68.2 GiB", "512 MiB", "17 B": three significant digits at most below 100, binary units.
std::string FormatBytes(int64_t bytes);
// "1 h 12 min", "2 d 3 h", "4 min 5 s", "8.2 s", "350 ms". Negative or not finite: "unknown".
std::string FormatDuration(double seconds);
// "12,524".
std::string FormatGrouped(int64_t value);
// "30.5 B", "14.2 M", "950": for parameter and token counts.
std::string FormatCount(int64_t value);
// "12,524 tokens/s", below 100 with one decimal.
std::string FormatTokenRate(double tokens_per_second);
// Shortest text that reads back as the same double: "1e-05", "0.03", "1".
std::string FormatNumber(double value);

}  // namespace switchyard
