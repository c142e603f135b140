#include "coordinator/launch/launcher.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "coordinator/job/names.h"
#include "coordinator/plan/placement.h"

namespace switchyard::coordinator {
namespace {

using agent::v1::AttemptStatus;
using agent::v1::ConnectResponse;
using agent::v1::ProbeResult;
using store::v1::JobRecord;

Failure MakeFailure(const char* code, std::string message, const std::string& node = "") {
  Failure failure;
  failure.code = code;
  failure.message = std::move(message);
  failure.node = node;
  return failure;
}

std::string ProbeId(const JobRecord& record, const std::string& node) {
  return absl::StrCat(record.job().uid(), "/", record.job().epoch(), "/", node);
}

void SendProbe(CoreContext& core, const JobRecord& record, const std::string& node, bool first) {
  ConnectResponse message;
  auto& probe = *message.mutable_probe_paths();
  probe.set_probe_id(ProbeId(record, node));
  probe.set_job_uid(record.job().uid());
  probe.set_epoch(record.job().epoch());
  probe.set_model(record.job().spec().model());
  probe.set_output(record.job().spec().checkpoint().output());
  probe.set_nonce(record.launch().nonce());
  probe.set_write_nonce(first);
  if (first) {
    probe.add_data(record.job().spec().data().train());
    if (!record.job().spec().data().eval().empty())
      probe.add_data(record.job().spec().data().eval());
  }
  core.SendOnce(core.book.live(record.job().uid()), "probe", node, core.options.resend, message);
}

// What the probes say; empty while answers are missing. The writer of the nonce answers first.
std::optional<Failure> CheckProbes(const JobRecord& record, const LiveJob& live,
                                   const std::vector<std::string>& nodes) {
  const ProbeResult* first = nullptr;
  for (const std::string& node : nodes) {
    const auto it = live.probes.find(node);
    if (it == live.probes.end()) continue;
    const ProbeResult& result = it->second;
    if (!result.problems().empty()) {
      return MakeFailure(
          "PATHS", absl::StrCat("on node ", node, ": ", absl::StrJoin(result.problems(), "; ")),
          node);
    }
    if (first == nullptr) {
      first = &result;
    } else if (result.model_fingerprint() != first->model_fingerprint()) {
      return MakeFailure(
          "PATHS",
          absl::StrFormat("%s is not the same model on nodes %s and %s: copy it again",
                          record.job().spec().model(), nodes.front(), node),
          node);
    }
    const int64_t needed = record.job().plan().disk_needed_bytes();
    // Checkpoints of earlier attempts are part of what is needed.
    const bool fresh = record.job().attempts_size() == 1;
    if (fresh && node == nodes.front() && result.disk_free_bytes() > 0 &&
        result.disk_free_bytes() < needed) {
      return MakeFailure("DISK_FULL",
                         absl::StrFormat("%s has %d bytes free, %d are needed for checkpoint.keep "
                                         "+ 1 checkpoints and the final model: "
                                         "free space or lower checkpoint.keep",
                                         record.job().spec().checkpoint().output(),
                                         result.disk_free_bytes(), needed),
                         node);
    }
  }
  return std::nullopt;
}

void SendPrepareData(CoreContext& core, const JobRecord& record, const std::string& node) {
  const v1::JobSpec& spec = record.job().spec();
  ConnectResponse message;
  auto& prepare = *message.mutable_prepare_data();
  prepare.set_job_uid(record.job().uid());
  prepare.set_epoch(record.job().epoch());
  prepare.set_model(spec.model());
  prepare.set_train(spec.data().train());
  prepare.set_eval(spec.data().eval());
  prepare.set_sequence_length(record.job().plan().sequence_length());
  prepare.set_train_on_all_tokens(spec.data().train_on_all_tokens());
  prepare.set_max_bad_lines(spec.data().max_bad_lines());
  prepare.set_disable_packing(spec.data().disable_packing());
  prepare.set_trace_id(record.job().trace_id());
  prepare.set_output_dir(absl::StrCat(spec.checkpoint().output(), "/data"));
  core.SendOnce(core.book.live(record.job().uid()), "prepare", node, std::chrono::milliseconds(0),
                message);
}

// The attempt's own slots, so that the final plan is made for where it runs.
std::vector<PlannerSlot> OwnSlots(const CoreContext& core, const JobRecord& record) {
  std::vector<PlannerSlot> own;
  const auto& placements = record.job().attempts().rbegin()->placements();
  for (PlannerSlot& slot : PlannerSlots(core.nodes, /*only_usable=*/false)) {
    const bool mine = std::any_of(placements.begin(), placements.end(), [&](const auto& placement) {
      return placement.node() == slot.node && placement.slot() == slot.index;
    });
    if (!mine) continue;
    // An agent that has joined the machine since takes nothing of what was reserved.
    slot.memory_bytes = std::max(slot.memory_bytes, SlotBytesNeeded(record.job().plan()));
    own.push_back(std::move(slot));
  }
  return own;
}

// Makes the plan final with the real number of sequences and writes the trainers' configuration.
std::optional<Failure> FinalisePlan(CoreContext& core, const std::string& uid,
                                    const agent::v1::DataStatus& data) {
  const JobRecord& stored = *core.book.Find(uid);
  v1::JobSpec spec = stored.job().spec();
  spec.mutable_mesh()->set_device(stored.job().plan().device());
  spec.mutable_mesh()->set_ranks(stored.job().attempts().rbegin()->placements_size());
  spec.mutable_mesh()->set_expert_parallel(stored.job().plan().expert_parallel());
  absl::StatusOr<v1::Plan> plan =
      core.planner.Plan(spec, OwnSlots(core, stored), data.train_sequences());
  if (!plan.ok()) return MakeFailure("MODEL", std::string(plan.status().message()));
  if (!plan->feasible()) {
    return MakeFailure("DOES_NOT_FIT", absl::StrCat("the prepared data changes the plan: ",
                                                    absl::StrJoin(plan->problems(), "; ")));
  }
  JobRecord& record = core.book.Edit(uid);
  *record.mutable_job()->mutable_plan() = *plan;
  *record.mutable_launch()->mutable_data() = data;
  for (const std::string& node : NodesOf(record)) {
    (*record.mutable_launch()->mutable_incarnations())[node] = core.nodes.Find(node)->incarnation;
  }
  TrainerConfigInput input;
  input.spec = record.job().spec();
  input.plan = *plan;
  input.data = data;
  input.job_name = record.job().name();
  input.job_uid = uid;
  input.epoch = record.job().epoch();
  input.resume_from = record.launch().resume_from();
  record.mutable_launch()->set_trainer_config_json(core.planner.TrainerConfig(input));
  core.book.live(uid).progress.set_total_steps(plan->total_steps());
  core.book.AddEvent(record.job().name(), record.job().epoch(), "DataPrepared",
                     v1::EVENT_SEVERITY_INFO,
                     absl::StrFormat("%d training sequences of %d tokens%s, %d held-out; %d steps",
                                     data.train_sequences(), plan->sequence_length(),
                                     data.cached() ? " (reused)" : "", data.eval_sequences(),
                                     plan->total_steps()));
  return std::nullopt;
}

void SendStartRanks(CoreContext& core, const JobRecord& record, const std::string& node) {
  ConnectResponse message;
  auto& start = *message.mutable_start_ranks();
  start.set_job_uid(record.job().uid());
  start.set_epoch(record.job().epoch());
  start.set_job(record.job().name());
  start.set_trace_id(record.job().trace_id());
  start.set_trainer_config_json(record.launch().trainer_config_json());
  for (const v1::RankPlacement& placement : record.job().attempts().rbegin()->placements()) {
    if (placement.node() != node) continue;
    auto& rank = *start.add_ranks();
    rank.set_rank(placement.rank());
    rank.set_slot(placement.slot());
  }
  core.SendOnce(core.book.live(record.job().uid()), "start", node, std::chrono::milliseconds(0),
                message);
}

bool HasRanks(const CoreContext& core, const JobRecord& record, const std::string& node) {
  const NodeEntry* entry = core.nodes.Find(node);
  if (entry == nullptr) return false;
  const auto it = entry->attempts.find({record.job().uid(), record.job().epoch()});
  return it != entry->attempts.end() && !it->second.ranks().empty();
}

}  // namespace

std::vector<PlannerSlot> PlannerSlots(const NodeTable& nodes, bool only_usable) {
  std::vector<PlannerSlot> slots;
  for (const auto& [name, entry] : nodes.nodes()) {
    const bool usable = entry.node.state() == v1::NODE_STATE_READY && !entry.node.cordoned() &&
                        !entry.node.draining();
    if (only_usable && !usable) continue;
    for (const v1::Slot& slot : entry.node.slots()) {
      slots.push_back({name, slot.index(), slot.device(), slot.product(), entry.SlotBytes(slot),
                       entry.node.memory_domain(), entry.node.cpu_cores(),
                       entry.node.slots_size()});
    }
  }
  return slots;
}

void RelayRendezvous(CoreContext& core, const std::string& uid, const AttemptFacts& facts) {
  if (facts.rank0_status == nullptr || facts.rank0_status->rendezvous_id().empty()) return;
  if (facts.ready >= facts.world) return;
  const JobRecord& record = *core.book.Find(uid);
  ConnectResponse message;
  auto& relay = *message.mutable_relay_line();
  relay.set_job_uid(uid);
  relay.set_epoch(record.job().epoch());
  relay.mutable_line()->mutable_rendezvous()->set_id(facts.rank0_status->rendezvous_id());
  for (const std::string& node : facts.nodes) {
    if (!HasRanks(core, record, node)) continue;
    core.SendOnce(core.book.live(uid), "rendezvous", node, std::chrono::milliseconds(0), message);
  }
}

std::optional<Failure> DriveLaunch(CoreContext& core, const std::string& uid,
                                   const AttemptFacts& facts) {
  const JobRecord& record = *core.book.Find(uid);
  LiveJob& live = core.book.live(uid);
  if (record.launch().trainer_config_json().empty()) {
    if (auto failure = CheckProbes(record, live, facts.nodes)) return failure;
    const std::string& first = facts.nodes.front();
    if (live.probes.count(first) == 0) {
      SendProbe(core, record, first, /*first=*/true);
      return std::nullopt;
    }
    bool all = true;
    for (const std::string& node : facts.nodes) {
      if (live.probes.count(node) > 0) continue;
      all = false;
      SendProbe(core, record, node, /*first=*/false);
    }
    if (!all) return std::nullopt;
    if (facts.rank0_status == nullptr || !facts.rank0_status->data().ready()) {
      SendPrepareData(core, record, first);
      return std::nullopt;
    }
    for (const std::string& node : facts.nodes) {
      const NodeEntry* entry = core.nodes.Find(node);
      if (entry == nullptr || !entry->connected()) return std::nullopt;
    }
    const agent::v1::DataStatus data = facts.rank0_status->data();
    if (auto failure = FinalisePlan(core, uid, data)) return failure;
  }
  const auto now = core.clock.Steady();
  if (live.start_sent == Clock::SteadyTime()) live.start_sent = now;
  if (now - live.start_sent > core.options.launch_timeout) {
    return MakeFailure(
        "LAUNCH_TIMEOUT",
        absl::StrFormat(
            "only %d of %d ranks were ready %d s after their start", facts.ready, facts.world,
            std::chrono::duration_cast<std::chrono::seconds>(core.options.launch_timeout).count()));
  }
  for (const std::string& node : facts.nodes) {
    if (!HasRanks(core, record, node)) SendStartRanks(core, record, node);
  }
  RelayRendezvous(core, uid, facts);
  return std::nullopt;
}

}  // namespace switchyard::coordinator
