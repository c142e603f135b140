// Short words for states, phases and times.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <string>

#include "absl/time/time.h"
#include "switchyard/v1/event.pb.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/node.pb.h"

namespace switchyard::coordinator {

std::string StateWord(v1::JobState state);             // "RUNNING"
std::string NodeStateWord(v1::NodeState state);        // "READY"
std::string SeverityWord(v1::EventSeverity severity);  // "warning"
// ANSI colour of a state; empty without colour.
std::string StateColor(v1::JobState state);
// `text` between `escape` and reset, or as it is when `color` is false.
std::string Colored(const std::string& text, const std::string& escape, bool color);

// "12,524 tokens/s", below 100 with one decimal.
std::string TokenRate(double tokens_per_second);

absl::Time ToTime(const google::protobuf::Timestamp& timestamp);
absl::Duration ToDuration(const google::protobuf::Duration& duration);
// "2026-03-01 14:03:05", local time; "-" when unset.
std::string TimeText(const google::protobuf::Timestamp& timestamp);
// Time since, "4 min 5 s"; "-" when unset.
std::string AgeText(const google::protobuf::Timestamp& timestamp, absl::Time now);

}  // namespace switchyard::coordinator
