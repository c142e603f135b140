#include "coordinator/plan/nearest.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/plan/resolved_job.h"

namespace switchyard::coordinator {
namespace {

using Changes = std::vector<SpecChange>;

constexpr const char* kUnset = "unset";

// Freeing what the user fixed; the planner then chooses it.
Changes FreeMesh(const v1::JobSpec& spec) {
  Changes changes;
  if (spec.mesh().ranks() > 0) changes.push_back({"mesh.ranks", absl::StrCat(spec.mesh().ranks()), kUnset});
  if (spec.mesh().expert_parallel() > 0) {
    changes.push_back({"mesh.expert_parallel", absl::StrCat(spec.mesh().expert_parallel()), kUnset});
  }
  if (spec.training().has_micro_batch_sequences()) {
    changes.push_back({"training.micro_batch_sequences",
                       absl::StrCat(spec.training().micro_batch_sequences()), kUnset});
  }
  return changes;
}

Changes FewerCheckpoints(const ResolvedJob& job) {
  Changes changes;
  for (int keep = job.spec.checkpoint().keep() - 1; keep >= 1; --keep) {
    changes.push_back({"checkpoint.keep", absl::StrCat(job.spec.checkpoint().keep()), absl::StrCat(keep)});
  }
  return changes;
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
    changes.push_back({"data.sequence_length", absl::StrCat(job.sequence_length), absl::StrCat(length)});
  }
  return changes;
}

Changes MoreMachines(const PlanInput& input, const ResolvedJob& job) {
  const auto slots = std::count_if(input.slots.begin(), input.slots.end(),
                                   [&](const PlannerSlot& slot) { return slot.device == job.device; });
  Changes changes;
  // CPU jobs cannot span machines, so more of them would not help.
  if (slots == 0 || job.device != "cuda") return changes;
  for (int factor : {2, 4, 8, 16}) {
    changes.push_back({"slots", absl::StrCat(slots), absl::StrCat(slots * factor)});
  }
  return changes;
}

// Copies of the nodes that are there, under other names.
void MultiplySlots(int64_t factor, PlanInput& input) {
  const std::vector<PlannerSlot> present = input.slots;
  for (int64_t copy = 1; copy < factor; ++copy) {
    for (PlannerSlot slot : present) {
      absl::StrAppend(&slot.node, "+", copy);
      if (!slot.memory_domain.empty()) absl::StrAppend(&slot.memory_domain, "+", copy);
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
  if (change.field == "slots") {
    return absl::StrCat("slots connected: ", change.from, " -> ", change.to, " (more nodes of the same kind)");
  }
  return absl::StrCat(change.field, ": ", change.from, " -> ", change.to);
}

void ApplyChange(const SpecChange& change, PlanInput& input) {
  v1::JobSpec& spec = input.spec;
  int64_t number = 0;
  const bool numeric = absl::SimpleAtoi(change.to, &number);
  const auto small = static_cast<int32_t>(number);
  if (change.field == "mesh.ranks") spec.mutable_mesh()->set_ranks(small);
  if (change.field == "mesh.expert_parallel") spec.mutable_mesh()->set_expert_parallel(small);
  if (change.field == "training.micro_batch_sequences") {
    spec.mutable_training()->clear_micro_batch_sequences();
    if (numeric) spec.mutable_training()->set_micro_batch_sequences(small);
  }
  if (change.field == "training.optimizer") spec.mutable_training()->set_optimizer(change.to);
  if (change.field == "training.precision") spec.mutable_training()->set_precision(change.to);
  if (change.field == "data.sequence_length") spec.mutable_data()->set_sequence_length(small);
  if (change.field == "checkpoint.keep") spec.mutable_checkpoint()->set_keep(small);
  int64_t before = 0;
  if (change.field == "slots" && absl::SimpleAtoi(change.from, &before) && before > 0) {
    MultiplySlots(number / before, input);
  }
}

std::vector<SpecChange> FindNearest(const PlanInput& input) {
  const ResolvedJob job = ResolveJob(input);
  const Changes mesh = FreeMesh(input.spec);

  // Single steps, cheapest first. Each group's own order is from the smallest change to the largest.
  Changes single = mesh;
  for (const Changes& group : {FewerCheckpoints(job), LighterNumerics(job), ShorterSequences(job)}) {
    single.insert(single.end(), group.begin(), group.end());
  }
  for (const SpecChange& change : single) {
    if (Feasible(input, {change})) return Settle(input, {change});
  }
  // Then with everything free that the planner could choose better, and with combinations.
  std::vector<Changes> bases = {mesh};
  for (const Changes& group : {LighterNumerics(job), ShorterSequences(job), MoreMachines(input, job)}) {
    for (const SpecChange& change : group) {
      Changes both = mesh;
      both.push_back(change);
      bases.push_back(std::move(both));
    }
  }
  for (const SpecChange& numerics : LighterNumerics(job)) {
    for (const Changes& group : {ShorterSequences(job), MoreMachines(input, job)}) {
      for (const SpecChange& change : group) {
        Changes all = mesh;
        all.push_back(numerics);
        all.push_back(change);
        bases.push_back(std::move(all));
      }
    }
  }
  for (const Changes& changes : bases) {
    if (!changes.empty() && Feasible(input, changes)) return Settle(input, changes);
  }
  return {};
}

}  // namespace switchyard::coordinator
