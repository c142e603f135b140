// Trace ids as in W3C Trace Context: one id from a user's request to the lines of its trainers.
#pragma once

#include <optional>
#include <string>

namespace switchyard {

// The name under which a traceparent travels: as gRPC metadata, and in capitals as an environment
// variable.
inline constexpr char kTraceparentKey[] = "traceparent";
inline constexpr char kTraceparentVariable[] = "TRACEPARENT";

// 32 lower-case hexadecimal digits.
std::string NewTraceId();
// The trace id in "00-{trace id}-{parent id}-{flags}"; empty when the text is anything else.
std::optional<std::string> TraceIdOf(const std::string& traceparent);
// A traceparent of this trace with a new parent id.
std::string Traceparent(const std::string& trace_id);

}  // namespace switchyard
