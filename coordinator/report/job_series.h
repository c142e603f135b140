// The series of one job: their declarations, and how a job or a step sets them.
#pragma once

#include <string>

#include "common/telemetry/registry.h"
#include "switchyard/v1/job.pb.h"
#include "switchyard/v1/metrics.pb.h"

namespace switchyard::coordinator {

// {project, job} out of "projects/{project}/jobs/{job}".
telemetry::LabelValues JobLabels(const std::string& name);

struct JobSeries {
  explicit JobSeries(telemetry::Registry& registry);

  // The counters and histograms of a job are there from now on, as 0: Prometheus counts the first
  // event only if it saw the series before.
  void Start(const v1::Job& job) const;
  telemetry::LabelValues InfoLabels(const v1::Job& job) const;
  void SetState(const v1::Job& job) const;
  void SetPlan(const v1::Job& job) const;
  void SetProgress(const v1::Job& job) const;
  void SetStep(const v1::Job& job, const v1::StepSample& sample) const;
  // Counters: only for a step that was not counted before.
  void CountStep(const v1::Job& job, const v1::StepSample& sample) const;
  void SetExpertLoad(const v1::Job& job, const v1::ExpertLoad& load) const;

  telemetry::Gauge state, info, epoch, step, total_steps, loss, aux_loss, eval_loss, learning_rate,
      grad_norm;
  telemetry::Gauge tokens_per_second, predicted_tokens_per_second, eta;
  telemetry::Gauge peak_memory, planned_memory, memory_capacity;
  telemetry::Gauge expert_load, layer_load, dead_experts, router_entropy;
  telemetry::Gauge checkpoint_step, checkpoint_interval, checkpoint_bytes, save_seconds;
  telemetry::Counter tokens, phase_seconds, skipped_steps, restarts, checkpoints;
  telemetry::Histogram step_seconds;
};

}  // namespace switchyard::coordinator
