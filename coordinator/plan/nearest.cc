#include "coordinator/plan/nearest.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/model/cuda_limits.h"
#include "coordinator/plan/mesh_choice.h"
#include "coordinator/plan/resolved_job.h"

namespace switchyard::coordinator {
namespace {

using Changes = std::vector<SpecChange>;

constexpr const char* kUnset = "unset";
constexpr const char* kSlots = "slots";
constexpr const char* kNodeSlots = "slots_per_node";

// Fewer ranks than asked for, as many as there are.
Changes FewerRanks(const PlanInput& input, const ResolvedJob& job) {
  const int asked = input.spec.mesh().ranks();
  const int usable = UsableSlots(input, job);
  if (usable < 1 || usable >= asked) return {};
  return {{"mesh.ranks", absl::StrCat(asked), absl::StrCat(usable)}};
}

// Freeing what the user fixed; the planner then chooses it.
Changes FreeMesh(const v1::JobSpec& spec) {
  Changes changes;
  if (spec.training().has_activation_memory()) {
    changes.push_back({"training.activation_memory", spec.training().activation_memory(), kUnset});
  }
  if (spec.training().has_micro_batch_sequences()) {
    changes.push_back({"training.micro_batch_sequences",
                       absl::StrCat(spec.training().micro_batch_sequences()), kUnset});
  }
  if (spec.mesh().expert_parallel() > 0) {
    changes.push_back(
        {"mesh.expert_parallel", absl::StrCat(spec.mesh().expert_parallel()), kUnset});
  }
  if (spec.mesh().ranks() > 0)
    changes.push_back({"mesh.ranks", absl::StrCat(spec.mesh().ranks()), kUnset});
  return changes;
}

// Another device, when there is no slot of the one asked for, or GPUs cannot train the model.
Changes OtherDevice(const PlanInput& input, const ResolvedJob& job) {
  const bool refused =
      job.device_kind == DeviceKind::kCuda && !CudaShapeProblems(input.model).empty();
  const bool has_cpus = std::any_of(input.slots.begin(), input.slots.end(),
                                    [](const PlannerSlot& slot) { return slot.device == "cpu"; });
  if (refused && has_cpus) return {{"mesh.device", "cuda", "cpu"}};
  if (input.slots.empty() || UsableSlots(input, job) > 0) return {};
  return {{"mesh.device", job.device, "auto"}};
}

// As many checkpoints as the disk holds, when it does not hold those asked for.
Changes FewerCheckpoints(const PlanInput& input, const ResolvedJob& job) {
  const auto disk_suffices = [](const PlanInput& tried) {
    const v1::Plan plan = PlanAsAsked(tried);
    return plan.disk_free_bytes() < 0 || plan.disk_needed_bytes() <= plan.disk_free_bytes();
  };
  const int asked = job.spec.checkpoint().keep();
  PlanInput tried = input;
  for (int keep = asked; keep >= 1; --keep) {
    tried.spec.mutable_checkpoint()->set_keep(keep);
    if (!disk_suffices(tried)) continue;
    if (keep == asked) return {};
    return {{"checkpoint.keep", absl::StrCat(asked), absl::StrCat(keep)}};
  }
  return {};
}

Changes LighterNumerics(const ResolvedJob& job) {
  Changes changes;
  if (job.optimizer == OptimizerProfile::kCompact) return changes;
  if (job.precision == Precision::kFloat32) {
    changes.push_back({"training.precision", "float32", "bfloat16"});
  } else {
    changes.push_back({"training.optimizer", "exact", "compact"});
  }
  return changes;
}

Changes ShorterSequences(const ResolvedJob& job) {
  Changes changes;
  for (int64_t length = job.sequence_length / 2; length >= 128; length /= 2) {
    changes.push_back(
        {"data.sequence_length", absl::StrCat(job.sequence_length), absl::StrCat(length)});
  }
  return changes;
}

Changes MoreMachines(const PlanInput& input, const ResolvedJob& job) {
  int64_t slots = 0;
  int64_t largest_node = 0;
  for (const PlannerSlot& slot : input.slots) {
    if (slot.device != job.device) continue;
    ++slots;
    largest_node = std::max<int64_t>(largest_node, slot.node_slots);
  }
  Changes changes;
  // CPU jobs cannot span machines, so more of them would not help.
  if (slots == 0 || job.device != "cuda") return changes;
  for (int64_t size = largest_node * 2; size <= 8; size *= 2) {
    changes.push_back({kNodeSlots, absl::StrCat(largest_node), absl::StrCat(size)});
  }
  for (const int factor : {2, 4, 8, 16}) {
    changes.push_back({kSlots, absl::StrCat(slots), absl::StrCat(slots * factor)});
  }
  return changes;
}

// Copies of every slot: on nodes of other names, or at higher indices of the same node.
void MultiplySlots(int64_t factor, bool same_node, PlanInput& input) {
  const std::vector<PlannerSlot> present = input.slots;
  for (PlannerSlot& slot : input.slots) slot.node_slots *= same_node ? static_cast<int>(factor) : 1;
  for (int64_t copy = 1; copy < factor; ++copy) {
    for (PlannerSlot slot : present) {
      if (same_node) {
        slot.index += static_cast<int>(copy) * slot.node_slots;
        slot.node_slots *= static_cast<int>(factor);
      } else {
        absl::StrAppend(&slot.node, "+", copy);
        if (!slot.memory_domain.empty()) absl::StrAppend(&slot.memory_domain, "+", copy);
      }
      input.slots.push_back(std::move(slot));
    }
  }
}

bool Feasible(PlanInput input, const Changes& changes) {
  for (const SpecChange& change : changes) ApplyChange(change, input);
  return PlanAsAsked(input).feasible();
}

// Replaces "unset" by what the planner chose, and drops changes that this makes needless.
Changes Settle(const PlanInput& input, Changes changes) {
  PlanInput changed = input;
  for (const SpecChange& change : changes) ApplyChange(change, changed);
  const v1::Plan plan = PlanAsAsked(changed);
  for (SpecChange& change : changes) {
    if (change.to != kUnset) continue;
    if (change.field == "mesh.ranks") change.to = absl::StrCat(plan.ranks());
    if (change.field == "mesh.expert_parallel") change.to = absl::StrCat(plan.expert_parallel());
    if (change.field == "training.activation_memory") change.to = plan.activation_memory();
    if (change.field == "training.micro_batch_sequences") {
      change.to = absl::StrCat(plan.micro_batch_sequences());
    }
  }
  changes.erase(std::remove_if(changes.begin(), changes.end(),
                               [](const SpecChange& change) { return change.from == change.to; }),
                changes.end());
  return changes;
}

}  // namespace

std::string ChangeText(const SpecChange& change) {
  if (change.field == kSlots) {
    return absl::StrCat("slots connected: ", change.from, " -> ", change.to,
                        " (more nodes of the same kind)");
  }
  if (change.field == kNodeSlots) {
    return absl::StrCat("slots of a node: ", change.from, " -> ", change.to, " (of the same kind)");
  }
  return absl::StrCat(change.field, ": ", change.from, " -> ", change.to);
}

void ApplyChange(const SpecChange& change, PlanInput& input) {
  v1::JobSpec& spec = input.spec;
  int64_t number = 0;
  const bool numeric = absl::SimpleAtoi(change.to, &number);
  const auto small = static_cast<int32_t>(number);
  if (change.field == "mesh.device") spec.mutable_mesh()->set_device(change.to);
  if (change.field == "mesh.ranks") spec.mutable_mesh()->set_ranks(small);
  if (change.field == "mesh.expert_parallel") spec.mutable_mesh()->set_expert_parallel(small);
  if (change.field == "training.micro_batch_sequences") {
    spec.mutable_training()->clear_micro_batch_sequences();
    if (numeric) spec.mutable_training()->set_micro_batch_sequences(small);
  }
  if (change.field == "training.activation_memory") {
    spec.mutable_training()->clear_activation_memory();
    if (change.to != kUnset) spec.mutable_training()->set_activation_memory(change.to);
  }
  if (change.field == "training.optimizer") spec.mutable_training()->set_optimizer(change.to);
  if (change.field == "training.precision") spec.mutable_training()->set_precision(change.to);
  if (change.field == "data.sequence_length") spec.mutable_data()->set_sequence_length(small);
  if (change.field == "checkpoint.keep") spec.mutable_checkpoint()->set_keep(small);
  int64_t before = 0;
  if ((change.field == kSlots || change.field == kNodeSlots) &&
      absl::SimpleAtoi(change.from, &before) && before > 0) {
    MultiplySlots(number / before, change.field == kNodeSlots, input);
  }
}

std::vector<SpecChange> FindNearest(const PlanInput& input) {
  const ResolvedJob job = ResolveJob(input);
  // What has to change whatever else does comes first.
  for (const Changes& needed : {OtherDevice(input, job), FewerCheckpoints(input, job)}) {
    if (needed.empty()) continue;
    PlanInput changed = input;
    ApplyChange(needed.front(), changed);
    if (PlanAsAsked(changed).feasible()) return needed;
    Changes rest = FindNearest(changed);
    if (!rest.empty()) rest.insert(rest.begin(), needed.front());
    return rest;
  }
  const Changes mesh = FreeMesh(input.spec);
  const Changes numerics = LighterNumerics(job);
  const Changes lengths = ShorterSequences(job);
  const Changes machines = MoreMachines(input, job);

  // Single steps, cheapest first; each group is ordered from the smallest change to the largest.
  for (const Changes& group : {FewerRanks(input, job), mesh, numerics, lengths}) {
    for (const SpecChange& change : group) {
      if (Feasible(input, {change})) return Settle(input, {change});
    }
  }
  // Then with everything free that the planner could choose better, and at last in combinations.
  std::vector<Changes> combinations = {mesh};
  const auto combine = [&](const Changes& base, const Changes& group) {
    for (const SpecChange& change : group) {
      combinations.push_back(base);
      combinations.back().push_back(change);
    }
  };
  for (const Changes& group : {numerics, lengths, machines}) combine(mesh, group);
  for (const SpecChange& change : numerics) {
    Changes lighter = mesh;
    lighter.push_back(change);
    for (const Changes& group : {lengths, machines}) combine(lighter, group);
  }
  for (const Changes& changes : combinations) {
    if (!changes.empty() && Feasible(input, changes)) return Settle(input, changes);
  }
  return {};
}

}  // namespace switchyard::coordinator
