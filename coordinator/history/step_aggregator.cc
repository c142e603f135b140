#include "coordinator/history/step_aggregator.h"

#include <algorithm>

namespace switchyard::coordinator {

std::vector<v1::StepSample> StepAggregator::Add(int rank, const trainer::v1::Step& step) {
  std::vector<v1::StepSample> told;
  if (step.step() <= told_) return told;
  Open& open = open_[step.step()];
  v1::StepSample& sample = open.sample;
  if (open.ranks.empty() || rank == 0) {
    sample.set_step(step.step());
    sample.set_epoch(epoch_);
    sample.set_loss(step.loss());
    sample.set_aux_loss(step.aux_loss());
    sample.set_learning_rate(step.learning_rate());
    sample.set_grad_norm(step.grad_norm());
    sample.set_tokens(step.tokens());
    sample.set_targets(step.targets());
    sample.set_skipped(step.skipped());
    sample.set_expert_load_max_over_mean(step.expert_load_max_over_mean());
    sample.set_dead_experts(step.dead_experts());
    sample.set_router_entropy_ratio(step.router_entropy_ratio());
    *sample.mutable_phase_seconds() = step.phase_seconds();
  }
  sample.set_step_seconds(std::max(sample.step_seconds(), step.step_seconds()));
  sample.set_peak_memory_bytes(std::max(sample.peak_memory_bytes(), step.peak_memory_bytes()));
  open.ranks.insert(rank);
  const bool all = open.ranks.size() == static_cast<size_t>(world_);
  const int64_t complete = std::max(all ? step.step() : 0, step.step() - 2);
  while (!open_.empty() && open_.begin()->first <= complete) {
    told.push_back(Finish(std::move(open_.begin()->second)));
    open_.erase(open_.begin());
  }
  return told;
}

v1::StepSample StepAggregator::Finish(Open open) {
  v1::StepSample& sample = open.sample;
  if (sample.step_seconds() > 0) {
    sample.set_tokens_per_second(static_cast<double>(sample.tokens()) / sample.step_seconds());
  }
  if (const auto it = early_evals_.find(sample.step()); it != early_evals_.end()) {
    sample.set_eval_loss(it->second);
  }
  told_ = sample.step();
  early_evals_.erase(early_evals_.begin(), early_evals_.upper_bound(told_));
  last_ = sample;
  return sample;
}

std::vector<v1::StepSample> StepAggregator::AddEval(const trainer::v1::Eval& eval) {
  if (eval.step() > told_) {
    early_evals_[eval.step()] = eval.loss();
    return {};
  }
  if (eval.step() != last_.step() || eval.step() == 0) return {};
  last_.set_eval_loss(eval.loss());
  return {last_};
}

}  // namespace switchyard::coordinator
