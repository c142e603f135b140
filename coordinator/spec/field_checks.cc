#include "coordinator/spec/field_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/units.h"
#include "common/utf8.h"

namespace switchyard::coordinator {
namespace {

constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxQuoted = 80;

std::string RangeText(const Range& range) {
  const bool above = std::isfinite(range.low);
  const bool below = std::isfinite(range.high);
  std::string text;
  if (above) {
    absl::StrAppend(&text, range.low_open ? "greater than " : "at least ", FormatNumber(range.low));
  }
  if (below) {
    absl::StrAppend(&text, above ? " and " : "", range.high_open ? "less than " : "at most ",
                    FormatNumber(range.high));
  }
  return text;
}

}  // namespace

std::string Quote(const std::string& value) {
  if (value.size() <= kMaxQuoted) return absl::StrCat("\"", absl::Utf8SafeCEscape(value), "\"");
  return absl::StrCat("\"", absl::Utf8SafeCEscape(Utf8Prefix(value, kMaxQuoted)), "...\" (",
                      FormatGrouped(static_cast<int64_t>(value.size())), " bytes)");
}

void FieldChecks::CheckInteger(const std::string& field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  if (high == std::numeric_limits<int64_t>::max()) {
    Add(field, absl::StrCat("is ", value, "; must be at least ", low));
  } else {
    Add(field, absl::StrCat("is ", value, "; must be ", low, " to ", high));
  }
}

void FieldChecks::CheckNumber(const std::string& field, double value, const Range& range) {
  const bool low_ok = range.low_open ? value > range.low : value >= range.low;
  const bool high_ok = range.high_open ? value < range.high : value <= range.high;
  if (std::isfinite(value) && low_ok && high_ok) return;
  Add(field, absl::StrCat("is ", FormatNumber(value), "; must be ", RangeText(range)));
}

void FieldChecks::CheckChoice(const std::string& field, const std::string& value,
                              const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  Add(field, absl::StrCat("is ", Quote(value), "; must be one of ", absl::StrJoin(choices, ", ")));
}

bool FieldChecks::CheckPath(const std::string& field, const std::string& value,
                            const std::string& what) {
  if (value.empty()) {
    Add(field, absl::StrCat("is empty; set it to ", what));
    return false;
  }
  if (value.size() > kMaxPathBytes) {
    Add(field,
        absl::StrCat("is ", value.size(), " bytes long; a path may have at most ", kMaxPathBytes));
    return false;
  }
  const bool printable = std::all_of(value.begin(), value.end(),
                                     [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
  if (!printable) {
    Add(field,
        absl::StrCat("is ", Quote(value), "; a path may not contain NUL or control characters"));
    return false;
  }
  if (value[0] != '/') {
    Add(field, absl::StrCat("is ", Quote(value), "; must be an absolute path, starting with /"));
    return false;
  }
  for (const auto& part : absl::StrSplit(value, '/')) {
    if (part != "..") continue;
    Add(field,
        absl::StrCat("is ", Quote(value), "; must not contain \"..\", write the path it means"));
    return false;
  }
  return true;
}

}  // namespace switchyard::coordinator
