#include "coordinator/plan/planner.h"

#include <cmath>
#include <utility>

#include "common/model/cuda_limits.h"
#include "coordinator/plan/explain.h"
#include "coordinator/plan/mesh_choice.h"
#include "coordinator/plan/nearest.h"
#include "coordinator/plan/resolved_job.h"
#include "coordinator/plan/trainer_config.h"

namespace switchyard::coordinator {
namespace {

void FillMesh(const Candidate& candidate, v1::Plan& plan) {
  plan.set_ranks(candidate.ranks);
  plan.set_expert_parallel(candidate.expert_parallel);
  plan.set_expert_data_parallel(candidate.ranks / candidate.expert_parallel);
  plan.set_micro_batch_sequences(static_cast<int32_t>(candidate.micro_batch));
  plan.set_gradient_accumulation(static_cast<int32_t>(candidate.accumulation));
  plan.set_activation_memory(ActivationMemoryName(candidate.memory.activations));
  plan.set_activation_memory_by_trainer(candidate.activations_by_trainer);
  for (const auto& [name, bytes] : candidate.memory.categories) {
    auto* category = plan.add_memory();
    category->set_name(name);
    category->set_bytes(bytes);
  }
  plan.set_memory_bytes_per_rank(candidate.memory.total_bytes);
  plan.set_memory_capacity_bytes_per_rank(candidate.capacity_bytes);
}

void FillTime(const PlanInput& input, const ResolvedJob& job, const Candidate& candidate,
              v1::Plan& plan) {
  plan.set_tokens_per_second(candidate.tokens_per_second);
  const bool known = job.spec.training().has_steps() || input.train_sequences.has_value();
  if (!known) return;
  const int64_t steps = TotalSteps(job.spec, plan, input.train_sequences.value_or(0));
  plan.set_total_steps(steps);
  plan.set_total_tokens(steps * job.global_batch * job.sequence_length);
  const double seconds = static_cast<double>(steps) * candidate.step.Total();
  plan.mutable_duration()->set_seconds(static_cast<int64_t>(seconds));
  plan.mutable_duration()->set_nanos(static_cast<int32_t>((seconds - std::floor(seconds)) * 1e9));
}

// Bytes under the output while the next checkpoint is written before the oldest goes, and the final
// one.
int64_t DiskNeeded(const ResolvedJob& job, int64_t checkpoint_bytes) {
  // Without an interval only a pause writes a checkpoint.
  const int64_t kept =
      job.spec.checkpoint().interval_steps() > 0 ? job.spec.checkpoint().keep() + 1 : 1;
  return (kept + 1) * checkpoint_bytes;
}

void FillDisk(const PlanInput& input, const ResolvedJob& job, v1::Plan& plan) {
  plan.set_checkpoint_bytes(
      CheckpointBytes(input.model, input.checkpoint_model_bytes, job.precision, job.optimizer));
  plan.set_disk_needed_bytes(DiskNeeded(job, plan.checkpoint_bytes()));
  plan.set_disk_free_bytes(input.disk_free_bytes);
}

v1::Plan StartPlan(const PlanInput& input, const ResolvedJob& job) {
  v1::Plan plan;
  plan.set_device(job.device);
  plan.set_precision(PrecisionName(job.precision));
  plan.set_optimizer(OptimizerName(job.optimizer));
  plan.set_global_batch_sequences(static_cast<int32_t>(job.global_batch));
  plan.set_sequence_length(static_cast<int32_t>(job.sequence_length));
  plan.set_model_parameters(input.model.NumParameters());
  plan.set_active_parameters(input.model.NumActiveParameters());
  for (const auto& [field, value] : job.defaults) (*plan.mutable_defaults())[field] = value;
  return plan;
}

}  // namespace

v1::Plan PlanAsAsked(const PlanInput& input) {
  const ResolvedJob job = ResolveJob(input);
  v1::Plan plan = StartPlan(input, job);
  FillDisk(input, job, plan);
  const std::vector<Candidate> candidates = ListCandidates(input, job);
  const bool fits = !candidates.empty() && candidates.front().verdict == Verdict::kFits;
  if (!fits) {
    for (auto& problem : ExplainInfeasible(input, job, candidates))
      plan.add_problems(std::move(problem));
  }
  if (job.device_kind == DeviceKind::kCuda) {
    for (auto& problem : CudaShapeProblems(input.model)) plan.add_problems(std::move(problem));
    if (!candidates.empty()) {
      if (auto problem =
              CudaTokensProblem(input.model, candidates.front().micro_batch, job.sequence_length);
          !problem.empty()) {
        plan.add_problems(std::move(problem));
      }
    }
  }
  if (auto problem = ExplainDisk(input, job, plan.checkpoint_bytes(), plan.disk_needed_bytes());
      !problem.empty()) {
    plan.add_problems(std::move(problem));
  }
  plan.set_feasible(plan.problems().empty());
  if (candidates.empty()) return plan;

  const Candidate& chosen = candidates.front();
  FillMesh(chosen, plan);
  for (auto& alternative : ListRejected(job, candidates, chosen)) {
    *plan.add_rejected() = std::move(alternative);
  }
  if (!fits) return plan;
  FillTime(input, job, chosen, plan);
  for (auto& warning : ListWarnings(input, job, chosen)) plan.add_warnings(std::move(warning));
  return plan;
}

v1::Plan MakePlan(const PlanInput& input) {
  v1::Plan plan = PlanAsAsked(input);
  if (!plan.feasible()) {
    for (const SpecChange& change : FindNearest(input)) plan.add_nearest(ChangeText(change));
  }
  return plan;
}

}  // namespace switchyard::coordinator
