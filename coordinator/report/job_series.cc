#include "coordinator/report/job_series.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace switchyard::coordinator {
namespace {

using telemetry::LabelValues;

LabelValues With(LabelValues labels, const std::string& value) {
  labels.push_back(value);
  return labels;
}

// JOB_STATE_RUNNING -> RUNNING
std::string StateLabel(int state) {
  return v1::JobState_Name(static_cast<v1::JobState>(state)).substr(sizeof("JOB_STATE_") - 1);
}

}  // namespace

LabelValues JobLabels(const std::string& name) {
  const size_t project = name.find('/') + 1;
  const size_t project_end = name.find('/', project);
  return {name.substr(project, project_end - project), name.substr(name.rfind('/') + 1)};
}

JobSeries::JobSeries(telemetry::Registry& r) {
  const std::vector<std::string> job = {"project", "job"};
  const auto and_label = [&](const char* label) { return With(job, label); };
  state = r.AddGauge("switchyard_job_state",
                     "1 for the state that the job is in, 0 for every other.", and_label("state"));
  info = r.AddGauge("switchyard_job_info", "1; the job's mesh is its labels.",
                    {"project", "job", "device", "ranks", "expert_parallel"});
  epoch = r.AddGauge("switchyard_job_attempt", "Number of the current attempt.", job);
  step = r.AddGauge("switchyard_job_step", "Optimizer steps done.", job);
  total_steps = r.AddGauge("switchyard_job_target_steps", "Optimizer steps of the whole job.", job);
  loss =
      r.AddGauge("switchyard_job_loss", "Training loss of the newest step, nats per target.", job);
  aux_loss = r.AddGauge("switchyard_job_aux_loss",
                        "Load-balancing loss of the newest step before its coefficient.", job);
  eval_loss = r.AddGauge("switchyard_job_eval_loss", "Newest held-out loss, nats per target.", job);
  learning_rate =
      r.AddGauge("switchyard_job_learning_rate", "Learning rate of the newest step.", job);
  grad_norm = r.AddGauge("switchyard_job_grad_norm",
                         "Global gradient norm of the newest step before clipping.", job);
  tokens_per_second = r.AddGauge("switchyard_job_tokens_per_second",
                                 "Measured tokens per second over all ranks, smoothed.", job);
  predicted_tokens_per_second = r.AddGauge("switchyard_job_predicted_tokens_per_second",
                                           "Tokens per second that the plan predicts.", job);
  eta = r.AddGauge("switchyard_job_eta_seconds", "Estimated time to the end of the job.", job);
  peak_memory = r.AddGauge("switchyard_job_peak_memory_bytes", "Highest memory of any rank.", job);
  planned_memory = r.AddGauge("switchyard_job_planned_memory_bytes",
                              "Memory that the plan gives the rank that needs most.", job);
  memory_capacity = r.AddGauge("switchyard_job_memory_capacity_bytes",
                               "Memory that a rank of the job may use.", job);
  expert_load = r.AddGauge("switchyard_job_expert_load_max_over_mean_ratio",
                           "Busiest expert's tokens over the mean, worst layer, newest step.", job);
  layer_load = r.AddGauge("switchyard_job_layer_expert_load_max_over_mean_ratio",
                          "The same of one layer, at the newest sample.", and_label("layer"));
  dead_experts = r.AddGauge("switchyard_job_dead_experts",
                            "Experts, over all layers, that got no token in the newest step.", job);
  router_entropy =
      r.AddGauge("switchyard_job_router_entropy_ratio",
                 "Router entropy over log(experts), mean over layers, newest step.", job);
  checkpoint_step =
      r.AddGauge("switchyard_job_checkpoint_step", "Step of the newest committed checkpoint.", job);
  checkpoint_interval =
      r.AddGauge("switchyard_job_checkpoint_interval_steps",
                 "Steps between two checkpoints; 0 when only the end is saved.", job);
  checkpoint_bytes =
      r.AddGauge("switchyard_job_checkpoint_bytes", "Size of one checkpoint as planned.", job);
  save_seconds = r.AddGauge("switchyard_job_last_save_seconds",
                            "Time that the job spent in its newest saving phase.", job);
  tokens = r.AddCounter("switchyard_job_tokens_total",
                        "Tokens trained on, repeated steps included, padding excluded.", job);
  phase_seconds = r.AddCounter("switchyard_job_phase_seconds_total",
                               "Time of the steps by phase, rank 0.", and_label("phase"));
  skipped_steps = r.AddCounter("switchyard_job_skipped_steps_total",
                               "Steps skipped because a loss or gradient was not finite.", job);
  restarts = r.AddCounter("switchyard_job_restarts_total", "Attempts after the first.", job);
  checkpoints = r.AddCounter("switchyard_job_checkpoints_total", "Checkpoints committed.", job);
  step_seconds =
      r.AddHistogram("switchyard_job_step_seconds", "Wall time of a step on the slowest rank.",
                     {0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60}, job);
}

void JobSeries::Start(const v1::Job& job) const {
  const LabelValues labels = JobLabels(job.name());
  for (const auto* counter : {&tokens, &skipped_steps, &restarts, &checkpoints}) {
    counter->Increment(0, labels);
  }
  step_seconds.Touch(labels);
}

LabelValues JobSeries::InfoLabels(const v1::Job& job) const {
  const v1::Plan& plan = job.plan();
  LabelValues labels = JobLabels(job.name());
  labels.insert(labels.end(),
                {plan.device(), absl::StrCat(plan.ranks()), absl::StrCat(plan.expert_parallel())});
  return labels;
}

void JobSeries::SetState(const v1::Job& job) const {
  for (int value = v1::JOB_STATE_QUEUED; value <= v1::JobState_MAX; ++value) {
    state.Set(job.state() == value ? 1 : 0, With(JobLabels(job.name()), StateLabel(value)));
  }
  epoch.Set(static_cast<double>(job.epoch()), JobLabels(job.name()));
}

void JobSeries::SetPlan(const v1::Job& job) const {
  if (job.plan().ranks() == 0) return;
  const LabelValues labels = JobLabels(job.name());
  const v1::Plan& plan = job.plan();
  info.Set(1, InfoLabels(job));
  predicted_tokens_per_second.Set(plan.tokens_per_second(), labels);
  planned_memory.Set(static_cast<double>(plan.memory_bytes_per_rank()), labels);
  memory_capacity.Set(static_cast<double>(plan.memory_capacity_bytes_per_rank()), labels);
  checkpoint_interval.Set(static_cast<double>(job.spec().checkpoint().interval_steps()), labels);
  checkpoint_bytes.Set(static_cast<double>(plan.checkpoint_bytes()), labels);
}

void JobSeries::SetProgress(const v1::Job& job) const {
  const LabelValues labels = JobLabels(job.name());
  const v1::Progress& progress = job.progress();
  if (progress.total_steps() > 0)
    total_steps.Set(static_cast<double>(progress.total_steps()), labels);
  checkpoint_step.Set(static_cast<double>(progress.checkpoint_step()), labels);
  if (progress.has_eval_loss()) eval_loss.Set(progress.eval_loss(), labels);
  if (progress.step() == 0) return;
  step.Set(static_cast<double>(progress.step()), labels);
  tokens_per_second.Set(progress.tokens_per_second(), labels);
  peak_memory.Set(static_cast<double>(progress.peak_memory_bytes()), labels);
  if (progress.has_eta()) eta.Set(static_cast<double>(progress.eta().seconds()), labels);
}

void JobSeries::SetStep(const v1::Job& job, const v1::StepSample& sample) const {
  const LabelValues labels = JobLabels(job.name());
  step.Set(static_cast<double>(sample.step()), labels);
  loss.Set(sample.loss(), labels);
  aux_loss.Set(sample.aux_loss(), labels);
  if (sample.has_eval_loss()) eval_loss.Set(sample.eval_loss(), labels);
  learning_rate.Set(sample.learning_rate(), labels);
  grad_norm.Set(sample.grad_norm(), labels);
  expert_load.Set(sample.expert_load_max_over_mean(), labels);
  dead_experts.Set(sample.dead_experts(), labels);
  router_entropy.Set(sample.router_entropy_ratio(), labels);
}

void JobSeries::CountStep(const v1::Job& job, const v1::StepSample& sample) const {
  const LabelValues labels = JobLabels(job.name());
  tokens.Increment(static_cast<double>(std::max<int64_t>(0, sample.tokens())), labels);
  skipped_steps.Increment(sample.skipped() ? 1 : 0, labels);
  if (std::isfinite(sample.step_seconds())) step_seconds.Observe(sample.step_seconds(), labels);
  for (const auto& [phase, seconds] : sample.phase_seconds()) {
    if (seconds > 0 && std::isfinite(seconds))
      phase_seconds.Increment(seconds, With(labels, phase));
  }
}

void JobSeries::SetExpertLoad(const v1::Job& job, const v1::ExpertLoad& load) const {
  for (const auto& layer : load.layers()) {
    double sum = 0;
    int64_t most = 0;
    for (const int64_t count : layer.tokens_per_expert()) {
      sum += static_cast<double>(count);
      most = std::max(most, count);
    }
    if (sum <= 0) continue;
    layer_load.Set(static_cast<double>(most) * layer.tokens_per_expert_size() / sum,
                   With(JobLabels(job.name()), absl::StrCat(layer.layer())));
  }
}

}  // namespace switchyard::coordinator
