// Properties of plans over random models, machines and specs.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <set>

#include "common/mesh.h"
#include "common/units.h"
#include "coordinator/plan/nearest.h"
#include "coordinator/plan/placement.h"
#include "coordinator/plan/plan_text.h"
#include "coordinator/plan/planner.h"
#include "tests/coordinator/plan/plan_fixtures.h"

namespace switchyard::coordinator {
namespace {

ModelShape RandomModel() {
  ModelShape model = DemoModel();
  model.num_layers = *rc::gen::inRange<int64_t>(1, 5);
  model.hidden_size = 64 * *rc::gen::inRange<int64_t>(1, 64);
  model.head_dim = *rc::gen::element<int64_t>(16, 64, 128);
  model.num_kv_heads = *rc::gen::element<int64_t>(1, 2, 4);
  model.num_heads = model.num_kv_heads * *rc::gen::inRange<int64_t>(1, 9);
  model.vocab_size = *rc::gen::inRange<int64_t>(100, 200'000);
  model.intermediate_size = 64 * *rc::gen::inRange<int64_t>(1, 100);
  model.moe_intermediate_size = 32 * *rc::gen::inRange<int64_t>(1, 64);
  model.num_experts = *rc::gen::element<int64_t>(0, 1, 4, 6, 16, 60, 128);
  model.experts_per_token =
      model.num_experts == 0
          ? 0
          : *rc::gen::inRange<int64_t>(1, std::min<int64_t>(9, model.num_experts + 1));
  model.is_moe_layer.assign(static_cast<size_t>(model.num_layers), model.num_experts > 0);
  model.tie_word_embeddings = *rc::gen::arbitrary<bool>();
  return model;
}

v1::JobSpec RandomSpec() {
  v1::JobSpec spec =
      SpecOf(*rc::gen::element(8, 128, 1000, 4096, 32768), *rc::gen::inRange(1, 200));
  if (*rc::gen::inRange(0, 3) == 0) spec.mutable_mesh()->set_ranks(*rc::gen::inRange(1, 13));
  if (*rc::gen::inRange(0, 3) == 0)
    spec.mutable_mesh()->set_expert_parallel(*rc::gen::inRange(1, 9));
  if (*rc::gen::inRange(0, 4) == 0) {
    spec.mutable_training()->set_micro_batch_sequences(*rc::gen::inRange(1, 20));
  }
  spec.mutable_mesh()->set_device(*rc::gen::element<std::string>("auto", "cpu", "cuda"));
  if (*rc::gen::arbitrary<bool>()) spec.mutable_training()->set_precision("bfloat16");
  if (spec.training().precision() == "bfloat16" && *rc::gen::arbitrary<bool>()) {
    spec.mutable_training()->set_optimizer("compact");
  }
  spec.mutable_checkpoint()->set_keep(*rc::gen::inRange(1, 5));
  return spec;
}

std::vector<PlannerSlot> RandomSlots() {
  const int nodes = *rc::gen::inRange(1, 4);
  const int64_t memory = *rc::gen::inRange<int64_t>(1, 150) * kGiB;
  std::vector<PlannerSlot> slots =
      *rc::gen::arbitrary<bool>()
          ? GpuSlots(nodes, *rc::gen::inRange(1, 9),
                     *rc::gen::element<std::string>("NVIDIA H200", "other"), memory)
          : CpuSlots(nodes, *rc::gen::inRange(1, 5), *rc::gen::inRange(1, 17), memory / 4);
  // Some slots are smaller.
  for (PlannerSlot& slot : slots) {
    if (*rc::gen::inRange(0, 5) == 0) slot.memory_bytes /= 2;
  }
  return slots;
}

PlanInput RandomInput() {
  PlanInput input;
  input.model = RandomModel();
  input.spec = RandomSpec();
  input.slots = RandomSlots();
  input.checkpoint_model_bytes = 2 * input.model.NumParameters();
  if (*rc::gen::arbitrary<bool>()) input.train_sequences = *rc::gen::inRange<int64_t>(1, 100'000);
  input.disk_free_bytes = *rc::gen::element<int64_t>(-1, 10 * kGiB, 100'000 * kGiB);
  return input;
}

void CheckFeasible(const PlanInput& input, const v1::Plan& plan) {
  // Every expert has one owner in each ep group.
  const auto mesh =
      Mesh::Create(plan.ranks(), plan.expert_parallel(), static_cast<int>(input.model.num_experts));
  RC_ASSERT(mesh.ok());
  RC_ASSERT(plan.expert_data_parallel() == mesh->expert_data_parallel());
  for (int first = 0; first < plan.ranks(); first += plan.expert_parallel()) {
    std::multiset<int> owned;
    for (const int rank : mesh->EpGroup(first)) {
      for (int i = 0; i < mesh->experts_per_rank(); ++i) owned.insert(mesh->first_expert(rank) + i);
    }
    RC_ASSERT(owned.size() == static_cast<size_t>(input.model.num_experts));
    RC_ASSERT(std::set<int>(owned.begin(), owned.end()).size() == owned.size());
  }
  // The step covers the global batch, and no micro-batch more.
  const int64_t at_once = int64_t{plan.ranks()} * plan.micro_batch_sequences();
  RC_ASSERT(at_once * plan.gradient_accumulation() >= plan.global_batch_sequences());
  RC_ASSERT(at_once * (plan.gradient_accumulation() - 1) < plan.global_batch_sequences());
  // The table adds up and fits, and the scheduler would find slots for it.
  int64_t sum = 0;
  for (const auto& category : plan.memory()) {
    RC_ASSERT(category.bytes() >= 0);
    sum += category.bytes();
  }
  RC_ASSERT(sum == plan.memory_bytes_per_rank());
  RC_ASSERT(sum <= plan.memory_capacity_bytes_per_rank());
  const auto placed = PlaceRanks(input.slots, plan.device(), plan.ranks(), plan.expert_parallel(),
                                 SlotBytesNeeded(plan));
  RC_ASSERT(placed.has_value());
  RC_ASSERT(placed->size() == static_cast<size_t>(plan.ranks()));
  // An ep group stays on one node, or in one memory domain.
  for (size_t rank = 0; rank < placed->size(); ++rank) {
    const size_t first = rank / plan.expert_parallel() * plan.expert_parallel();
    RC_ASSERT(PlacementGroup((*placed)[rank]) == PlacementGroup((*placed)[first]));
  }
  RC_ASSERT(plan.tokens_per_second() > 0);
  for (const auto& other : plan.rejected()) {
    RC_ASSERT(other.tokens_per_second() <= plan.tokens_per_second());
  }
}

RC_GTEST_PROP(PlannerProperty, FeasiblePlansAreConsistentAndOthersSayWhy, ()) {
  const PlanInput input = RandomInput();
  const v1::Plan plan = PlanAsAsked(input);
  RC_TAG(plan.feasible());
  if (plan.feasible()) {
    CheckFeasible(input, plan);
  } else {
    RC_ASSERT(plan.problems_size() > 0);
  }
  RC_ASSERT(!RenderPlan(plan).empty());
}

RC_GTEST_PROP(PlannerProperty, TheNearestPlanReallyFits, ()) {
  const PlanInput input = RandomInput();
  RC_PRE(!PlanAsAsked(input).feasible());
  const std::vector<SpecChange> changes = FindNearest(input);
  RC_TAG(changes.size());
  if (changes.empty()) return;
  PlanInput changed = input;
  for (const SpecChange& change : changes) ApplyChange(change, changed);
  const v1::Plan plan = PlanAsAsked(changed);
  RC_ASSERT(plan.feasible());
  CheckFeasible(changed, plan);
}

RC_GTEST_PROP(PlannerProperty, MoreMemoryOrMoreSlotsNeverMakeAFeasiblePlanInfeasible, ()) {
  PlanInput input = RandomInput();
  RC_PRE(PlanAsAsked(input).feasible());
  PlanInput more_memory = input;
  for (PlannerSlot& slot : more_memory.slots) {
    slot.memory_bytes += *rc::gen::inRange<int64_t>(0, 64) * kGiB;
  }
  RC_ASSERT(PlanAsAsked(more_memory).feasible());
  PlanInput more_slots = input;
  PlannerSlot extra = input.slots.front();
  extra.node = "extra";
  extra.memory_domain = "extra";
  more_slots.slots.push_back(extra);
  RC_ASSERT(PlanAsAsked(more_slots).feasible());
}

RC_GTEST_PROP(PlannerProperty, PlansDependOnTheInputOnlyAndNotOnTheOrderOfSlots, ()) {
  const PlanInput input = RandomInput();
  PlanInput reversed = input;
  std::reverse(reversed.slots.begin(), reversed.slots.end());
  RC_ASSERT(PlanAsAsked(input).DebugString() == PlanAsAsked(reversed).DebugString());
}

}  // namespace
}  // namespace switchyard::coordinator
