#include "coordinator/cli/job_names.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "common/units.h"

namespace switchyard::coordinator {
namespace {

// "JOB_STATE_RUNNING" without its prefix; unknown numbers of a newer server as "STATE_17".
std::string Strip(const std::string& name, const std::string& prefix, int number) {
  if (name.empty()) return absl::StrCat("STATE_", number);
  return name.substr(std::min(prefix.size(), name.size()));
}

}  // namespace

std::string StateWord(v1::JobState state) {
  return Strip(v1::JobState_Name(state), "JOB_STATE_", state);
}

std::string NodeStateWord(v1::NodeState state) {
  return Strip(v1::NodeState_Name(state), "NODE_STATE_", state);
}

std::string SeverityWord(v1::EventSeverity severity) {
  return absl::AsciiStrToLower(
      Strip(v1::EventSeverity_Name(severity), "EVENT_SEVERITY_", severity));
}

std::string StateColor(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_RUNNING:
    case v1::JOB_STATE_SUCCEEDED:
      return "\033[32m";
    case v1::JOB_STATE_FAILED:
      return "\033[31m";
    case v1::JOB_STATE_RECOVERING:
    case v1::JOB_STATE_CANCELLING:
    case v1::JOB_STATE_PAUSING:
      return "\033[33m";
    case v1::JOB_STATE_QUEUED:
    case v1::JOB_STATE_RESERVED:
    case v1::JOB_STATE_LAUNCHING:
      return "\033[36m";
    default:
      return "\033[2m";
  }
}

std::string Colored(const std::string& text, const std::string& escape, bool color) {
  return color && !text.empty() ? absl::StrCat(escape, text, "\033[0m") : text;
}

std::string TokenRate(double tokens_per_second) {
  if (!(tokens_per_second >= 99.95)) return absl::StrFormat("%.1f tokens/s", tokens_per_second);
  return absl::StrCat(FormatGrouped(std::llround(tokens_per_second)), " tokens/s");
}

absl::Time ToTime(const google::protobuf::Timestamp& timestamp) {
  return absl::FromUnixSeconds(timestamp.seconds()) + absl::Nanoseconds(timestamp.nanos());
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

std::string TimeText(const google::protobuf::Timestamp& timestamp) {
  if (timestamp.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", ToTime(timestamp), absl::LocalTimeZone());
}

std::string AgeText(const google::protobuf::Timestamp& timestamp, absl::Time now) {
  if (timestamp.seconds() == 0) return "-";
  return FormatDuration(std::max(0.0, absl::ToDoubleSeconds(now - ToTime(timestamp))));
}

}  // namespace switchyard::coordinator
