// What happens after an attempt failed: a pure function over a table of failure codes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "switchyard/store/v1/record.pb.h"
#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

// One thing that went wrong in an attempt.
struct Failure {
  std::string code;     // of the trainer's exit line, or "KILLED", "NODE_LOST" ...
  std::string message;  // one sentence
  int rank = -1;        // -1: no rank
  std::string node;
  int exit_code = 0;
  int64_t step = 0;                   // newest step that the rank had done
  double time = 0;                    // seconds since the epoch, by the node's clock; 0 unknown
  bool first_on_node = false;         // the agent says that the node's others followed from it
  std::vector<std::string> evidence;  // log tail
};

// The failure that the others followed from: causes before consequences (PEER_LOST and the like),
// then the agent's word, then time. `failures` is not empty.
const Failure& RootFailure(const std::vector<Failure>& failures);

struct AttemptHistory {
  int64_t checkpoint_step_before = -1;  // newest usable checkpoint when the attempt began; -1 none
  int64_t checkpoint_step_after = -1;   // and when it ended
  double healthy_seconds = 0;           // time that it was RUNNING
  bool resumed_from_checkpoint = false;
  int max_attempts = 5;
};

struct RestartDecision {
  bool restart = false;
  bool mark_checkpoint_corrupt = false;  // the one that the attempt resumed from
  bool avoid_node = false;               // that failed, named by the failure
  v1::StateReason reason;                // why it restarts or stops; names the failure
  store::v1::RestartLedger ledger;       // the new one; backoff_ms is the wait
};

RestartDecision DecideRestart(const Failure& failure, const AttemptHistory& history,
                              const store::v1::RestartLedger& ledger);

}  // namespace switchyard::coordinator
