// What the coordinator knows, as series for Prometheus; docs/metrics.md describes every one of
// them.
//
// Called on the coordinator's writer thread; scraped from another. Knows nothing of the store. A
// job's series go 15 minutes after it ended, or at once when it is deleted; a node's when it is
// forgotten.
#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/telemetry/registry.h"
#include "coordinator/report/goodput.h"
#include "coordinator/report/job_observer.h"
#include "coordinator/report/job_series.h"

namespace switchyard::coordinator {

inline constexpr std::chrono::minutes kKeepSeriesAfterEnd{15};

class MetricsSink final : public JobObserver {
 public:
  // All are borrowed.
  MetricsSink(telemetry::Registry& registry, const Clock& clock, const std::string& version);

  void OnJobChanged(const v1::Job& job) override;
  void OnStep(const v1::Job& job, const v1::StepSample& sample) override;
  void OnExpertLoad(const v1::Job& job, const v1::ExpertLoad& load) override;
  void OnJobRemoved(const std::string& name) override;
  void OnNodeChanged(const v1::Node& node) override;
  void OnNodeHeard(const std::string& name, Clock::WallTime time) override;
  void OnNodeRemoved(const std::string& name) override;

  // Forgets jobs that ended long enough ago, and counts the time of the others up to now. Call it
  // before each scrape.
  void Refresh();

 private:
  struct Tracked {
    v1::JobState state = v1::JOB_STATE_UNSPECIFIED;
    telemetry::LabelValues info;          // of switchyard_job_info
    int restarts = 0;                     // counted so far
    int64_t checkpoint_step = 0;          // newest one counted
    std::pair<int64_t, int64_t> counted;  // epoch and step that the counters hold
    std::optional<Clock::SteadyTime> saving_since;
    GoodputTimer goodput;
    std::optional<Clock::SteadyTime> forget_at;
  };

  // Null when the job ended so long ago that it has no series any more.
  Tracked* Track(const v1::Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Tracks a job that is not tracked.
  std::map<std::string, Tracked>::iterator Start(const v1::Job& job)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ExpireLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Forget(const std::string& name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountNodes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CountQueue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  telemetry::Registry& registry_;
  const Clock& clock_;
  JobSeries series_;
  GoodputSeries goodput_;
  telemetry::Gauge queue_depth_;
  telemetry::Gauge nodes_;
  telemetry::Gauge node_state_;
  telemetry::Gauge node_heard_;
  telemetry::Gauge slots_;
  absl::Mutex mutex_;
  std::map<std::string, Tracked> jobs_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, v1::Node> known_nodes_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::coordinator
