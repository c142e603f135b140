#include "common/units.h"

#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard {
namespace {

// One decimal below 100, none above: enough to compare, short enough to read.
std::string ShortDecimal(double value) {
  if (std::abs(value) < 99.95 && value != std::floor(value)) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.0f", value);
}

std::string TwoParts(int64_t large, const char* large_unit, int64_t small, const char* small_unit) {
  std::string text = absl::StrCat(large, " ", large_unit);
  if (small > 0) absl::StrAppend(&text, " ", small, " ", small_unit);
  return text;
}

}  // namespace

std::string FormatBytes(int64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.5 and not 1024, so that rounding never prints "1024 MiB".
  while (std::abs(value) >= 1023.5 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return absl::StrCat(ShortDecimal(value), " ", kUnits[unit]);
}

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "unknown";
  if (seconds < 1) return absl::StrFormat("%.0f ms", seconds * 1000);
  if (seconds < 9.95) return absl::StrFormat("%.1f s", seconds);
  if (seconds > 1e15) return "unknown";
  const int64_t whole = std::llround(seconds);
  if (whole < 60) return absl::StrCat(whole, " s");
  if (whole < 3600) return TwoParts(whole / 60, "min", whole % 60, "s");
  if (whole < 86400) return TwoParts(whole / 3600, "h", whole % 3600 / 60, "min");
  return TwoParts(whole / 86400, "d", whole % 86400 / 3600, "h");
}

std::string FormatGrouped(int64_t value) {
  std::string digits = absl::StrCat(value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string FormatCount(int64_t value) {
  static constexpr const char* kUnits[] = {"", " k", " M", " B", " T"};
  if (value > -10000 && value < 10000) return absl::StrCat(value);
  double scaled = static_cast<double>(value);
  size_t unit = 0;
  while (std::abs(scaled) >= 999.5 && unit + 1 < std::size(kUnits)) {
    scaled /= 1000;
    ++unit;
  }
  return absl::StrCat(ShortDecimal(scaled), kUnits[unit]);
}

std::string FormatTokenRate(double tokens_per_second) {
  if (!std::isfinite(tokens_per_second) || tokens_per_second < 0) return "unknown";
  if (tokens_per_second < 99.95) return absl::StrFormat("%.1f tokens/s", tokens_per_second);
  return absl::StrCat(FormatGrouped(std::llround(tokens_per_second)), " tokens/s");
}

std::string FormatNumber(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, result.ptr);
}

}  // namespace switchyard
