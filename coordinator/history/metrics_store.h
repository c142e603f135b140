// Step samples and expert load of jobs, in a database of their own that may be dropped at any time.
//
// Writing is buffered and never waits for a disk: a thread of its own writes. Reads see everything recorded.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/report/job_observer.h"

namespace switchyard::coordinator {

// A sample with its place in the order of arrival.
struct RecordedStep {
  int64_t id = 0;
  v1::StepSample sample;
};

class MetricsStore final : public JobObserver {
 public:
  // A file that cannot be read is put aside and a new one begun.
  static absl::StatusOr<std::unique_ptr<MetricsStore>> Open(const std::string& path);
  ~MetricsStore() override;

  void OnJobChanged(const v1::Job& job) override;
  void OnStep(const v1::Job& job, const v1::StepSample& sample) override;
  void OnExpertLoad(const v1::Job& job, const v1::ExpertLoad& load) override;
  void OnJobRemoved(const std::string& name) override;
  void OnNodeChanged(const v1::Node&) override {}

  // Steps above `after_step` received after `after_time_s` (seconds since the epoch), in step order; when there
  // are more than `limit` an even choice that keeps the first and the last.
  absl::StatusOr<std::vector<v1::StepSample>> Query(const std::string& uid, int64_t after_step,
                                                    double after_time_s, int limit);
  // Steps recorded after `id`, in order of arrival.
  absl::StatusOr<std::vector<RecordedStep>> After(const std::string& uid, int64_t id, int limit);
  // Id of the newest step of any job; 0 before the first.
  int64_t LastId() const;
  absl::StatusOr<std::optional<v1::ExpertLoad>> Load(const std::string& uid);

 private:
  struct Impl;
  explicit MetricsStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::coordinator
