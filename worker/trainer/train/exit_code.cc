#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {

const char* ExitCodeName(ExitCode code) {
  switch (code) {
    case ExitCode::kOk:
      return "OK";
    case ExitCode::kStopped:
      return "STOPPED";
    case ExitCode::kConfig:
      return "CONFIG";
    case ExitCode::kData:
      return "DATA";
    case ExitCode::kModel:
      return "MODEL";
    case ExitCode::kCheckpointCorrupt:
      return "CHECKPOINT_CORRUPT";
    case ExitCode::kOutput:
      return "OUTPUT";
    case ExitCode::kNonFinite:
      return "NON_FINITE";
    case ExitCode::kOutOfMemory:
      return "OUT_OF_MEMORY";
    case ExitCode::kPeerLost:
      return "PEER_LOST";
    case ExitCode::kDevice:
      return "DEVICE";
    case ExitCode::kInternal:
      return "INTERNAL";
  }
  return "INTERNAL";
}

int ProcessExitCode(ExitCode code) {
  switch (code) {
    case ExitCode::kOk:
    case ExitCode::kStopped:
      return 0;
    case ExitCode::kConfig:
      return 64;
    case ExitCode::kData:
      return 65;
    case ExitCode::kModel:
      return 66;
    case ExitCode::kCheckpointCorrupt:
      return 67;
    case ExitCode::kOutput:
      return 68;
    case ExitCode::kNonFinite:
      return 70;
    case ExitCode::kOutOfMemory:
      return 81;
    case ExitCode::kPeerLost:
      return 82;
    case ExitCode::kDevice:
      return 83;
    case ExitCode::kInternal:
      return 84;
  }
  return 84;
}

}  // namespace switchyard::trainer
