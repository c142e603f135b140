// What the agent exports on /metrics; docs/metrics.md describes every series. Few labels; a job's
// series go when its attempt is forgotten.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "common/http/http_server.h"
#include "common/telemetry/registry.h"
#include "worker/agent/core/agent_core.h"

namespace switchyard::agent {

class AgentMetrics {
 public:
  AgentMetrics();
  // Also /healthz: 200 while Update is called. `address` "off": not served.
  // `tls`: for who shows a certificate of the authority; without, anybody.
  absl::Status Serve(const std::string& address,
                     const std::optional<security::CertificateFiles>& tls = std::nullopt);
  // Where it is served; empty when it is not.
  std::string address() const { return http_ == nullptr ? "" : http_->address(); }

  void Update(const AgentCore::Usage& usage, bool in_session);
  void OnRankStarted(const std::string& job, int64_t epoch);
  void OnRankEnded(bool well);
  void OnPeakMemory(const std::string& job, int rank, int64_t bytes);
  void ForgetJob(const std::string& job);
  // Totals since the start of the process.
  void SetDroppedReports(int64_t total) { Raise(dropped_reports_, total, &dropped_reports_seen_); }
  void SetDroppedLogBytes(int64_t total) {
    Raise(dropped_log_bytes_, total, &dropped_log_bytes_seen_);
  }
  void OnBadLine() { bad_lines_.Increment(); }
  void OnSessionLost() { sessions_lost_.Increment(); }

 private:
  http::Response Health() const;
  static void Raise(const telemetry::Counter& counter, int64_t total, int64_t* seen);

  telemetry::Registry registry_;
  telemetry::Gauge slots_;
  telemetry::Gauge slots_used_;
  telemetry::Gauge attempts_;
  telemetry::Gauge results_unacknowledged_;
  telemetry::Gauge connected_;
  telemetry::Counter sessions_lost_;
  telemetry::Counter rank_ends_;
  telemetry::Counter bad_lines_;
  telemetry::Counter dropped_reports_;
  telemetry::Counter dropped_log_bytes_;
  telemetry::Counter rank_restarts_;
  telemetry::Gauge peak_memory_;
  int64_t dropped_reports_seen_ = 0;
  int64_t dropped_log_bytes_seen_ = 0;
  std::atomic<std::chrono::steady_clock::time_point> updated_{std::chrono::steady_clock::now()};
  std::unique_ptr<http::Server> http_;  // last: its handlers use the above
};

}  // namespace switchyard::agent
