#include "worker/agent/host/metrics.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/telemetry/metrics_page.h"

namespace switchyard::agent {
namespace {

// The loop turns at least with every heartbeat or attempt to connect.
constexpr std::chrono::seconds kStuckAfter{60};

struct JobLabels {
  std::string project;
  std::string job;
};

// "projects/{project}/jobs/{job}"; another name counts as a job without a project.
JobLabels Split(const std::string& name) {
  const std::vector<std::string> parts = absl::StrSplit(name, '/');
  if (parts.size() == 4 && parts[0] == "projects" && parts[2] == "jobs")
    return {parts[1], parts[3]};
  return {"", name};
}

}  // namespace

AgentMetrics::AgentMetrics() {
  slots_ = registry_.AddGauge("switchyard_agent_slots", "Slots that this node offers.");
  slots_used_ =
      registry_.AddGauge("switchyard_agent_slots_used", "Slots in which processes may be alive.");
  attempts_ =
      registry_.AddGauge("switchyard_agent_attempts", "Attempts on this node that have not ended.");
  results_unacknowledged_ =
      registry_.AddGauge("switchyard_agent_results_unacknowledged",
                         "Results that the coordinator has not acknowledged.");
  connected_ = registry_.AddGauge("switchyard_agent_connected",
                                  "1 while a session with the coordinator stands.");
  sessions_lost_ =
      registry_.AddCounter("switchyard_agent_sessions_lost_total", "Sessions that were lost.");
  rank_ends_ = registry_.AddCounter("switchyard_agent_rank_ends_total",
                                    "Ended ranks; outcome is ok or failed.", {"outcome"});
  for (const char* outcome : {"ok", "failed"}) rank_ends_.Increment(0, {outcome});
  bad_lines_ = registry_.AddCounter("switchyard_agent_bad_lines_total",
                                    "Lines of trainers that could not be read.");
  dropped_reports_ =
      registry_.AddCounter("switchyard_agent_reports_dropped_total",
                           "Step reports dropped because the coordinator was away or slow.");
  dropped_log_bytes_ =
      registry_.AddCounter("switchyard_agent_log_dropped_bytes_total",
                           "Log bytes lost because they could not be written to disk.");
  rank_restarts_ = registry_.AddCounter("switchyard_agent_rank_restarts_total",
                                        "Ranks started for a second or later attempt of their job.",
                                        {"project", "job"});
  peak_memory_ = registry_.AddGauge("switchyard_rank_peak_memory_bytes",
                                    "Peak memory that a rank of this node reported.",
                                    {"project", "job", "rank"});
}

absl::Status AgentMetrics::Serve(const std::string& address,
                                 const std::optional<security::CertificateFiles>& tls) {
  if (address == "off" || address.empty()) return absl::OkStatus();
  http::Options options;
  options.address = address;
  options.tls = tls;
  options.require_client_certificate = tls.has_value();
  if (tls) options.authorize = [](const http::Request&) { return nullptr; };  // the handshake did
  auto bound = http::Server::Bind(std::move(options));
  if (!bound.ok()) {
    return absl::Status(bound.status().code(), absl::StrCat(std::string(bound.status().message()),
                                                            "; --metrics off serves none"));
  }
  http_ = *std::move(bound);
  http_->Handle("/metrics", telemetry::MetricsPage(registry_));
  http_->Handle("/healthz", [this](const http::Request&) { return Health(); });
  http_->Serve();
  return absl::OkStatus();
}

http::Response AgentMetrics::Health() const {
  return std::chrono::steady_clock::now() - updated_.load() < kStuckAfter
             ? http::TextResponse(200, "ok\n")
             : http::TextResponse(503, "the agent's loop stands still; is a disk stuck?\n");
}

void AgentMetrics::Update(const AgentCore::Usage& usage, bool in_session) {
  updated_ = std::chrono::steady_clock::now();
  slots_.Set(usage.slots_total);
  slots_used_.Set(usage.slots_used);
  attempts_.Set(usage.attempts_live);
  results_unacknowledged_.Set(usage.results_unacknowledged);
  connected_.Set(in_session ? 1 : 0);
}

void AgentMetrics::OnRankStarted(const std::string& job, int64_t epoch) {
  const JobLabels labels = Split(job);
  rank_restarts_.Increment(epoch > 1 ? 1 : 0, {labels.project, labels.job});
}

void AgentMetrics::OnRankEnded(bool well) { rank_ends_.Increment(1, {well ? "ok" : "failed"}); }

void AgentMetrics::OnPeakMemory(const std::string& job, int rank, int64_t bytes) {
  const JobLabels labels = Split(job);
  peak_memory_.Set(static_cast<double>(bytes), {labels.project, labels.job, absl::StrCat(rank)});
}

void AgentMetrics::ForgetJob(const std::string& job) {
  const JobLabels labels = Split(job);
  registry_.RemoveSeries({{"project", labels.project}, {"job", labels.job}});
}

void AgentMetrics::Raise(const telemetry::Counter& counter, int64_t total, int64_t* seen) {
  if (total > *seen) counter.Increment(static_cast<double>(total - *seen));
  *seen = std::max(*seen, total);
}

}  // namespace switchyard::agent
