// Where a job's wall time goes: the share that trained, and what took the rest.
//
// Each moment of a job is in one bucket, by its state, its phase, and whether its steps were done
// before by an attempt that was lost. Not thread-safe; the caller brings the clock.
#pragma once

#include <cstdint>
#include <string>

#include "common/clock.h"
#include "common/telemetry/registry.h"
#include "switchyard/v1/job.pb.h"

namespace switchyard::coordinator {

class GoodputSeries {
 public:
  explicit GoodputSeries(telemetry::Registry& registry);

  // The series of a job are there from now on, as 0.
  void Start(const telemetry::LabelValues& labels) const;

  telemetry::Counter seconds;             // by bucket
  telemetry::Histogram queue_seconds;     // from queued to reserved
  telemetry::Histogram recovery_seconds;  // from the failure to running again
};

// Of one job.
class GoodputTimer {
 public:
  // The job is as told from `now` on; the time before is counted to the bucket that it was in.
  void Move(const v1::Job& job, Clock::SteadyTime now, const GoodputSeries& series,
            const telemetry::LabelValues& labels);
  // A step of the current attempt is done.
  void OnStep(int64_t epoch, int64_t step);
  // Counts the time up to `now`; for a scrape.
  void Advance(Clock::SteadyTime now, const GoodputSeries& series,
               const telemetry::LabelValues& labels);

 private:
  std::string BucketOf(const v1::Job& job) const;

  v1::JobState state_ = v1::JOB_STATE_UNSPECIFIED;
  std::string bucket_;  // empty: time that counts nowhere
  Clock::SteadyTime since_{};
  Clock::SteadyTime queued_at_{};
  Clock::SteadyTime failed_at_{};
  bool recovering_ = false;
  bool training_ = false;
  int64_t epoch_ = 0;
  int64_t step_ = 0;
  int64_t done_before_ = 0;  // newest step of earlier attempts
};

}  // namespace switchyard::coordinator
