// How a run ended, and what an exception means for that.
#pragma once

#include <cstdint>
#include <string>

#include "worker/trainer/train/exit_code.h"

namespace switchyard::trainer {

struct RunEnd {
  ExitCode code = ExitCode::kOk;
  std::string message;
  int64_t step = 0;  // newest done
};

// Calls `body` and turns whatever it throws into a code and a sentence: TrainerError says both;
// PeerLost is kPeerLost; lack of memory kOutOfMemory; anything else kInternal.
//
// What a rank shares with others belongs inside `body`: what is destroyed while an exception is in
// flight lets go of its peers without waiting for them, so that the reason is told at once.
template <typename Body>
RunEnd Guarded(Body body);

// For the exception being handled.
RunEnd EndOfCurrentException();

template <typename Body>
RunEnd Guarded(Body body) {
  try {
    return body();
  } catch (...) {
    return EndOfCurrentException();
  }
}

}  // namespace switchyard::trainer
