// The coordinator's pages over HTTP: the list of jobs, and each job's report as it stands now.
//
// Read-only, from what is published and recorded; never touches the writer thread. Their scripts
// ask again every few seconds and get 304 while nothing changed.
#pragma once

#include <functional>
#include <utility>

#include "common/http/http_server.h"
#include "coordinator/history/metrics_store.h"
#include "coordinator/job/job_store.h"
#include "coordinator/service/published_state.h"
#include "coordinator/service/visibility.h"

namespace switchyard::coordinator {

class LivePages {
 public:
  // What the caller of an admitted request may hear of.
  using Visibility = std::function<MaySee(const http::Request&)>;
  // All are borrowed and thread-safe.
  LivePages(const PublishedState& state, MetricsStore& metrics, JobStore& store,
            Visibility visibility)
      : state_(state), metrics_(metrics), store_(store), visibility_(std::move(visibility)) {}

  // "/", "/jobs/PROJECT/JOB" and "/assets/...". This must outlive the server.
  void AddTo(http::Server& server);

 private:
  http::Response JobList(const http::Request& request) const;
  http::Response JobReport(const http::Request& request) const;

  const PublishedState& state_;
  MetricsStore& metrics_;
  JobStore& store_;
  const Visibility visibility_;
};

}  // namespace switchyard::coordinator
