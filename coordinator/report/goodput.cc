#include "coordinator/report/goodput.h"

#include <algorithm>
#include <chrono>

namespace switchyard::coordinator {
namespace {

double Seconds(Clock::SteadyTime from, Clock::SteadyTime to) {
  return std::max(0.0, std::chrono::duration<double>(to - from).count());
}

}  // namespace

GoodputSeries::GoodputSeries(telemetry::Registry& registry)
    : seconds(registry.AddCounter("switchyard_job_wall_seconds_total",
                                  "Wall time of the job by what it went into.",
                                  {"project", "job", "bucket"})),
      queue_seconds(registry.AddHistogram("switchyard_job_queue_seconds",
                                          "Time that a job waited for its slots.",
                                          telemetry::DurationBuckets(), {"project", "job"})),
      recovery_seconds(registry.AddHistogram(
          "switchyard_job_recovery_seconds",
          "Time from the failure of an attempt until every rank of the next one trained.",
          telemetry::DurationBuckets(), {"project", "job"})) {}

void GoodputSeries::Start(const telemetry::LabelValues& labels) const {
  for (const char* bucket : {"queue", "recovery", "startup", "checkpoint", "evaluation", "repeated",
                             "productive", "paused", "stopping"}) {
    telemetry::LabelValues all = labels;
    all.emplace_back(bucket);
    seconds.Increment(0, all);
  }
  queue_seconds.Touch(labels);
  recovery_seconds.Touch(labels);
}

std::string GoodputTimer::BucketOf(const v1::Job& job) const {
  switch (job.state()) {
    case v1::JOB_STATE_QUEUED:
      return recovering_ ? "recovery" : "queue";
    case v1::JOB_STATE_RESERVED:
    case v1::JOB_STATE_LAUNCHING:
      return recovering_ ? "recovery" : "startup";
    case v1::JOB_STATE_RUNNING:
      if (job.phase() == v1::JOB_PHASE_SAVING) return "checkpoint";
      if (job.phase() == v1::JOB_PHASE_EVALUATING) return "evaluation";
      return step_ < done_before_ ? "repeated" : "productive";
    case v1::JOB_STATE_PAUSING:
      return "checkpoint";
    case v1::JOB_STATE_PAUSED:
      return "paused";
    case v1::JOB_STATE_RECOVERING:
      return "recovery";
    case v1::JOB_STATE_CANCELLING:
      return "stopping";
    default:
      return "";
  }
}

void GoodputTimer::Move(const v1::Job& job, Clock::SteadyTime now, const GoodputSeries& series,
                        const telemetry::LabelValues& labels) {
  Advance(now, series, labels);
  if (job.epoch() != epoch_) {
    // Also what a coordinator that has just started did not see itself.
    for (const auto& attempt : job.attempts()) {
      if (attempt.epoch() < job.epoch()) done_before_ = std::max(done_before_, attempt.last_step());
    }
    done_before_ = std::max(done_before_, step_);
    epoch_ = job.epoch();
    step_ = job.attempts().empty() ? 0 : job.attempts().rbegin()->resumed_from_step();
  }
  const v1::JobState before = state_;
  state_ = job.state();
  if (state_ != before) {
    if (state_ == v1::JOB_STATE_QUEUED) queued_at_ = now;
    if (before == v1::JOB_STATE_QUEUED && state_ == v1::JOB_STATE_RESERVED)
      series.queue_seconds.Observe(Seconds(queued_at_, now), labels);
    if (state_ == v1::JOB_STATE_RECOVERING && !recovering_) {
      recovering_ = true;
      failed_at_ = now;
    } else if (state_ == v1::JOB_STATE_RUNNING && recovering_) {
      recovering_ = false;
      series.recovery_seconds.Observe(Seconds(failed_at_, now), labels);
    } else if (job.terminal() || state_ == v1::JOB_STATE_PAUSED) {
      recovering_ = false;
    }
  }
  bucket_ = BucketOf(job);
  training_ = bucket_ == "productive" || bucket_ == "repeated";
}

void GoodputTimer::OnStep(int64_t epoch, int64_t step) {
  if (epoch == epoch_) step_ = std::max(step_, step);
  if (training_) bucket_ = step_ < done_before_ ? "repeated" : "productive";
}

void GoodputTimer::Advance(Clock::SteadyTime now, const GoodputSeries& series,
                           const telemetry::LabelValues& labels) {
  if (!bucket_.empty()) {
    telemetry::LabelValues all = labels;
    all.push_back(bucket_);
    series.seconds.Increment(Seconds(since_, now), all);
  }
  since_ = now;
}

}  // namespace switchyard::coordinator
