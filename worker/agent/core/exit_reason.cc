#include "worker/agent/core/exit_reason.h"

#include <csignal>
#include <cstring>

#include "absl/strings/str_format.h"

namespace switchyard::agent {

bool EndedWell(const ProcessExited& event, const trainer::v1::Exit& said) {
  return event.exit_code == 0 && event.signal == 0 &&
         (said.code() == "OK" || said.code() == "STOPPED");
}

int ShellCode(const ProcessExited& event) {
  return event.signal != 0 ? 128 + event.signal : event.exit_code;
}

std::string DescribeEnd(const ProcessExited& event) {
  if (event.signal == 0) return absl::StrFormat("exit code %d", event.exit_code);
  return absl::StrFormat("signal %d (%s)", event.signal, strsignal(event.signal));
}

trainer::v1::Exit ExplainExit(const ProcessExited& event, const trainer::v1::Exit& said,
                              int64_t last_step) {
  const bool contradicts =
      (said.code() == "OK" || said.code() == "STOPPED") && !EndedWell(event, said);
  if (!said.code().empty() && !contradicts) return said;
  trainer::v1::Exit exit;
  exit.set_step(std::max(last_step, said.step()));
  const bool killed = event.signal == SIGKILL || event.signal == SIGTERM;
  exit.set_code(killed ? "KILLED" : "CRASHED");
  const int rank = event.key.rank;
  if (contradicts) {
    exit.set_message(absl::StrFormat("rank %d said %s and then ended with %s", rank, said.code(),
                                     DescribeEnd(event)));
  } else if (event.signal == SIGKILL) {
    exit.set_message(
        absl::StrFormat("rank %d was ended by signal 9 (Killed); when nobody sent it, the machine "
                        "ran out of memory",
                        rank));
  } else {
    exit.set_message(absl::StrFormat("rank %d ended with %s and gave no reason; see its log", rank,
                                     DescribeEnd(event)));
  }
  return exit;
}

}  // namespace switchyard::agent
