#include "common/units.h"

#include <array>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard {
namespace {

// Three significant figures without an exponent: 9.87, 98.7, 987.
std::string ThreeFigures(double value) {
  const double magnitude = std::abs(value);
  if (magnitude >= 99.95) return absl::StrFormat("%.0f", value);
  if (magnitude >= 9.995) return absl::StrFormat("%.1f", value);
  return absl::StrFormat("%.2f", value);
}

std::string NotFinite(double value) {
  return std::isnan(value) ? "NaN" : (value > 0 ? "inf" : "-inf");
}

}  // namespace

std::string FormatBytes(double bytes) {
  static constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  if (!std::isfinite(bytes)) return NotFinite(bytes);
  size_t unit = 0;
  // 1023.5 and more would be printed as 1024: take the next unit.
  while (std::abs(bytes) >= 1023.5 && unit + 1 < kUnits.size()) {
    bytes /= 1024;
    ++unit;
  }
  if (unit == 0) return absl::StrFormat("%.0f B", bytes);
  return absl::StrCat(ThreeFigures(bytes), " ", kUnits[unit]);
}

std::string FormatCount(double count) {
  static constexpr std::array kUnits = {"", " K", " M", " B", " T"};
  if (!std::isfinite(count)) return NotFinite(count);
  size_t unit = 0;
  while (std::abs(count) >= 999.5 && unit + 1 < kUnits.size()) {
    count /= 1000;
    ++unit;
  }
  if (unit == 0) {
    return count == std::floor(count) ? absl::StrFormat("%.0f", count) : ThreeFigures(count);
  }
  return absl::StrCat(ThreeFigures(count), kUnits[unit]);
}

std::string FormatDuration(double seconds) {
  if (!std::isfinite(seconds)) return NotFinite(seconds);
  if (seconds < 0) return absl::StrCat("-", FormatDuration(-seconds));
  if (seconds < 0.0995) return absl::StrFormat("%.0f ms", seconds * 1000);
  if (seconds < 9.95) return absl::StrFormat("%.1f s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 60) return absl::StrFormat("%d s", whole);
  if (whole < 3600) return absl::StrFormat("%d m %02d s", whole / 60, whole % 60);
  const int64_t minutes = whole / 60;
  if (minutes < 24 * 60) return absl::StrFormat("%d h %02d m", minutes / 60, minutes % 60);
  const int64_t hours = minutes / 60;
  return absl::StrFormat("%d d %02d h", hours / 24, hours % 24);
}

std::string FormatLoss(double loss) {
  return std::isfinite(loss) ? absl::StrFormat("%.4f", loss) : NotFinite(loss);
}

std::string FormatScientific(double value) {
  if (!std::isfinite(value)) return NotFinite(value);
  return value == 0 ? "0" : absl::StrFormat("%.2e", value);
}

std::string FormatGrouped(int64_t value) {
  const std::string digits = absl::StrCat(value);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && digits[i - 1] != '-' && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string FormatNumber(double value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof(buffer), value);
  return std::string(buffer, result.ptr);
}

}  // namespace switchyard
