// What the end of a rank's process means.
#pragma once

#include <string>

#include "switchyard/trainer/v1/lines.pb.h"
#include "worker/agent/core/types.h"

namespace switchyard::agent {

// True when the process did what it was there for: code 0 after an `exit` line "OK" or "STOPPED".
bool EndedWell(const ProcessExited& event, const trainer::v1::Exit& said);
// What to report: what the rank said, or in its words' absence what is known.
trainer::v1::Exit ExplainExit(const ProcessExited& event, const trainer::v1::Exit& said,
                              int64_t last_step);
// Exit code as shells give it: 128 + signal.
int ShellCode(const ProcessExited& event);
// "exit code 3", "signal 11 (Segmentation fault)".
std::string DescribeEnd(const ProcessExited& event);

}  // namespace switchyard::agent
