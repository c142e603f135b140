// Protobuf times from a Clock.
#pragma once

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <algorithm>
#include <chrono>

#include "common/clock.h"

namespace switchyard::coordinator {

inline google::protobuf::Timestamp ToTimestamp(Clock::WallTime time) {
  const auto nanos =
      std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  google::protobuf::Timestamp stamp;
  stamp.set_seconds(nanos / 1000000000);
  stamp.set_nanos(static_cast<int32_t>(nanos % 1000000000));
  return stamp;
}

inline double ToSeconds(const google::protobuf::Timestamp& stamp) {
  return static_cast<double>(stamp.seconds()) + 1e-9 * stamp.nanos();
}

// Negative and non-finite times become 0.
inline google::protobuf::Duration ToDuration(double seconds) {
  google::protobuf::Duration duration;
  if (!(seconds > 0)) return duration;
  seconds = std::min(seconds, 3e11);  // protobuf's limit is 10,000 years
  duration.set_seconds(static_cast<int64_t>(seconds));
  duration.set_nanos(
      static_cast<int32_t>((seconds - static_cast<double>(duration.seconds())) * 1e9));
  return duration;
}

}  // namespace switchyard::coordinator
