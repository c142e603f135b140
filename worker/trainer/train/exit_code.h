// How a trainer ends: the constant codes of the `exit` line and the process exit codes.
// docs/protocol.md has the table.
#pragma once

#include <stdexcept>
#include <string>

namespace switchyard::trainer {

enum class ExitCode {
  kOk,
  kStopped,
  kConfig,
  kData,
  kModel,
  kCheckpointCorrupt,
  kOutput,
  kNonFinite,
  kOutOfMemory,
  kPeerLost,
  kDevice,
  kInternal,
};

// "OK", "PEER_LOST", ...
const char* ExitCodeName(ExitCode code);
// 0 for kOk and kStopped; 64-78 for what only the user can mend; others may go away by a restart.
int ProcessExitCode(ExitCode code);

// Exit code of a trainer whose agent is gone; nobody is left to read a line.
inline constexpr int kAgentGoneExitCode = 86;

// Ends the run with a code and one sentence with the values and the fix.
class TrainerError : public std::runtime_error {
 public:
  TrainerError(ExitCode code, const std::string& message)
      : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

}  // namespace switchyard::trainer
