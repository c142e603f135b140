#include "coordinator/reconcile/attempt_facts.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/job/proto_time.h"

namespace switchyard::coordinator {
namespace {

using agent::v1::AttemptStatus;
using agent::v1::RankStatus;

v1::JobPhase PhaseOf(const AttemptStatus& status, const RankStatus& rank) {
  if (status.state() == agent::v1::ATTEMPT_STATE_PREPARING) return v1::JOB_PHASE_PREPARING_DATA;
  if (rank.phase() == "loading") return v1::JOB_PHASE_LOADING;
  if (rank.phase() == "training") return v1::JOB_PHASE_TRAINING;
  if (rank.phase() == "evaluating") return v1::JOB_PHASE_EVALUATING;
  if (rank.phase() == "saving") return v1::JOB_PHASE_SAVING;
  return status.state() == agent::v1::ATTEMPT_STATE_STARTING ? v1::JOB_PHASE_LOADING
                                                             : v1::JOB_PHASE_UNSPECIFIED;
}

bool IsCleanEnd(const store::v1::Launch& launch, const RankStatus& rank) {
  if (rank.exit().code() == "OK") return true;
  // Asked to stop: any end is as asked.
  return launch.stop() != store::v1::STOP_MODE_UNSPECIFIED &&
         (rank.exit().code() == "STOPPED" || rank.stopped_by_agent());
}

Failure FailureOf(const std::string& node, const AttemptStatus& status, const RankStatus& rank) {
  Failure failure;
  failure.code = rank.exit().code().empty() ? "CRASHED" : rank.exit().code();
  failure.message =
      rank.exit().message().empty()
          ? absl::StrFormat("rank %d ended with exit code %d", rank.rank(), rank.exit_code())
          : rank.exit().message();
  failure.rank = rank.rank();
  failure.node = node;
  failure.exit_code = rank.exit_code();
  failure.step = std::max(rank.step(), rank.exit().step());
  if (rank.has_exit_time()) failure.time = ToSeconds(rank.exit_time());
  failure.first_on_node =
      status.has_first_failed_rank() && status.first_failed_rank() == rank.rank();
  failure.evidence.assign(rank.log_tail().begin(), rank.log_tail().end());
  return failure;
}

void AddStatus(const store::v1::JobRecord& record, const std::string& node,
               const AttemptStatus& status, AttemptFacts& facts) {
  for (const RankStatus& rank : status.ranks()) {
    if (rank.ready()) ++facts.ready;
    facts.step = std::max({facts.step, rank.step(), rank.exit().step()});
    if (rank.rank() == 0) {
      facts.phase = PhaseOf(status, rank);
      facts.resumed_from_step = rank.resumed_from_step();
    }
    if (!rank.exited()) continue;
    if (rank.exit().code() == "OK") ++facts.finished_ok;
    // A rank that the agent ended only follows from something else.
    const bool follows = rank.stopped_by_agent() && !(status.has_first_failed_rank() &&
                                                      status.first_failed_rank() == rank.rank());
    if (!IsCleanEnd(record.launch(), rank) && !follows) {
      facts.failures.push_back(FailureOf(node, status, rank));
    }
  }
  if (status.ranks().empty() && status.state() == agent::v1::ATTEMPT_STATE_PREPARING) {
    facts.phase = v1::JOB_PHASE_PREPARING_DATA;
  }
  if (!status.data().error().empty() && !record.launch().has_data()) {
    Failure& failure = facts.failures.emplace_back();
    failure.code = status.data().user_error() ? "DATA" : "DATA_PREPARATION";
    failure.message = status.data().error();
    failure.node = node;
  }
  for (const auto& shard : status.checkpoint_shards()) facts.shards.push_back(shard);
  // An agent that ended an attempt by itself without saying which rank failed.
  if (status.state() == agent::v1::ATTEMPT_STATE_ENDED &&
      record.launch().stop() == store::v1::STOP_MODE_UNSPECIFIED && facts.failures.empty() &&
      (status.ranks().empty() || !status.stop_reason().empty())) {
    Failure& failure = facts.failures.emplace_back();
    failure.code = "AGENT_STOPPED";
    failure.message = status.stop_reason().empty() ? "the agent ended the attempt before it began"
                                                   : status.stop_reason();
    failure.node = node;
  }
}

}  // namespace

std::vector<std::string> NodesOf(const store::v1::JobRecord& record) {
  std::vector<std::string> nodes;
  if (record.job().attempts().empty()) return nodes;
  for (const v1::RankPlacement& placement : record.job().attempts().rbegin()->placements()) {
    if (std::find(nodes.begin(), nodes.end(), placement.node()) == nodes.end()) {
      nodes.push_back(placement.node());
    }
  }
  return nodes;
}

bool IsLost(const store::v1::Launch& launch, const std::string& node) {
  return launch.lost_nodes().count(node) > 0;
}

const AttemptStatus* ResultOf(const store::v1::Launch& launch, const std::string& node) {
  for (const store::v1::NodeResult& result : launch.results()) {
    if (result.node() == node) return &result.status();
  }
  return nullptr;
}

AttemptFacts GatherFacts(const store::v1::JobRecord& record, const NodeTable& nodes) {
  const store::v1::Launch& launch = record.launch();
  AttemptFacts facts;
  facts.nodes = NodesOf(record);
  facts.world = record.job().attempts().rbegin()->placements_size();
  facts.all_gone = true;
  for (const std::string& name : facts.nodes) {
    const AttemptStatus* status = ResultOf(launch, name);
    const bool gone = status != nullptr || IsLost(launch, name);
    facts.all_gone &= gone;
    if (!gone) {
      if (const NodeEntry* entry = nodes.Find(name)) {
        const auto it = entry->attempts.find({record.job().uid(), record.job().epoch()});
        if (it != entry->attempts.end()) status = &it->second;
      }
    }
    if (status == nullptr) continue;
    if (name == facts.nodes.front()) facts.rank0_status = status;
    AddStatus(record, name, *status, facts);
  }
  for (const auto& [name, code] : launch.lost_nodes()) {
    if (ResultOf(launch, name) != nullptr || code == "RELEASED") continue;
    Failure& failure = facts.failures.emplace_back();
    failure.code = code;
    failure.message =
        code == "NODE_LOST"
            ? absl::StrCat("node ", name, " sent no sign of life for its whole lease")
            : absl::StrCat("the agent of node ", name, " restarted and lost the attempt");
    failure.node = name;
    failure.step = facts.step;
  }
  if (launch.failed_here()) {
    Failure& failure = facts.failures.emplace_back();
    failure.code = launch.stop_reason().code();
    failure.message = launch.stop_reason().message();
    failure.node = launch.failed_node();
    if (launch.has_failed_rank()) failure.rank = launch.failed_rank();
    failure.step = facts.step;
  }
  return facts;
}

}  // namespace switchyard::coordinator
