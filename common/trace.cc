#include "common/trace.h"

#include <random>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

std::string RandomHex(int words) {
  std::random_device device;
  std::string text;
  for (int i = 0; i < words; ++i) absl::StrAppend(&text, absl::Hex(device(), absl::kZeroPad8));
  return text;
}

bool IsLowerHex(const std::string& text, size_t begin, size_t size) {
  return text.find_first_not_of("0123456789abcdef", begin) >= begin + size;
}

}  // namespace

std::string NewTraceId() { return RandomHex(4); }

std::optional<std::string> TraceIdOf(const std::string& traceparent) {
  // Later versions may be longer; version ff and all zeros are invalid.
  if (traceparent.size() < 55 || traceparent[2] != '-' || traceparent[35] != '-' ||
      traceparent[52] != '-' || !IsLowerHex(traceparent, 0, 2) || !IsLowerHex(traceparent, 3, 32) ||
      !IsLowerHex(traceparent, 36, 16) || !IsLowerHex(traceparent, 53, 2)) {
    return std::nullopt;
  }
  const std::string version = traceparent.substr(0, 2);
  if (version == "ff" || (version == "00" && traceparent.size() != 55)) return std::nullopt;
  const std::string id = traceparent.substr(3, 32);
  if (id.find_first_not_of('0') == std::string::npos ||
      traceparent.find_first_not_of('0', 36) >= 52) {
    return std::nullopt;
  }
  return id;
}

std::string Traceparent(const std::string& trace_id) {
  return absl::StrCat("00-", trace_id, "-", RandomHex(2), "-01");
}

}  // namespace switchyard
