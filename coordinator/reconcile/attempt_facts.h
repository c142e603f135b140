// What is known of a job's current attempt, from the stored results and the agents' newest reports.
// Pure.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "coordinator/reconcile/restart_rules.h"
#include "coordinator/schedule/node_table.h"
#include "switchyard/store/v1/record.pb.h"

namespace switchyard::coordinator {

struct AttemptFacts {
  std::vector<std::string> nodes;  // of the placements, in rank order, each once
  const agent::v1::AttemptStatus* rank0_status = nullptr;  // null: nothing reported
  int world = 0;
  int ready = 0;          // ranks that said ready, gone or not
  int finished_ok = 0;    // ranks that ended with OK
  bool all_gone = false;  // every node ended the attempt, or is lost
  std::vector<Failure> failures;
  std::vector<trainer::v1::CheckpointShard> shards;  // of all nodes
  v1::JobPhase phase = v1::JOB_PHASE_UNSPECIFIED;    // of rank 0
  int64_t step = 0;                                  // newest of any rank
  int64_t resumed_from_step = 0;
};

// `record` has a launch.
AttemptFacts GatherFacts(const store::v1::JobRecord& record, const NodeTable& nodes);

// Nodes of the job's newest attempt in rank order, each once.
std::vector<std::string> NodesOf(const store::v1::JobRecord& record);
bool IsLost(const store::v1::Launch& launch, const std::string& node);
const agent::v1::AttemptStatus* ResultOf(const store::v1::Launch& launch, const std::string& node);

}  // namespace switchyard::coordinator
