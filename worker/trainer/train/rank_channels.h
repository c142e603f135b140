// A rank's lines to and from whoever started it.
#pragma once

#include <string>

#include "worker/trainer/train/control_reader.h"
#include "worker/trainer/train/reporter.h"
#include "worker/trainer/train/run_end.h"

namespace switchyard::trainer {

struct RankChannels {
  // Takes fd 3 and fd 4 when `inherited`; otherwise nothing is said and nothing is heard.
  explicit RankChannels(bool inherited);

  Reporter reporter;
  ControlReader control;
};

// The communicator id of this attempt: rank 0 makes it and reports it, all wait for it to come
// back. Empty when there is a single rank. Throws TrainerError(kPeerLost) when none comes within
// kStartLimit.
std::string AgreeOnRendezvous(RankChannels& channels, int rank, int64_t ranks,
                              const std::string& device);

// Says `end` as the last line and on standard error, and returns the process exit code.
int SayExit(RankChannels& channels, const RunEnd& end);

// Called first in a rank that another process started: it dies with its parent.
void DieWithParent();

}  // namespace switchyard::trainer
