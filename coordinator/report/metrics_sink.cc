#include "coordinator/report/metrics_sink.h"

#include <algorithm>
#include <vector>

namespace switchyard::coordinator {
namespace {

constexpr const char* kNodeStates[] = {"ready", "suspect", "lost"};

// nodes/a -> a
std::string NodeLabel(const std::string& name) { return name.substr(name.find('/') + 1); }

std::string NodeStateLabel(const v1::Node& node) {
  switch (node.state()) {
    case v1::NODE_STATE_READY:
      return "ready";
    case v1::NODE_STATE_SUSPECT:
      return "suspect";
    default:
      return "lost";
  }
}

}  // namespace

MetricsSink::MetricsSink(telemetry::Registry& registry, const Clock& clock,
                         const std::string& version)
    : registry_(registry),
      clock_(clock),
      series_(registry),
      goodput_(registry),
      queue_depth_(
          registry.AddGauge("switchyard_queue_depth", "Jobs that wait for slots.", {"project"})),
      nodes_(registry.AddGauge("switchyard_nodes", "Nodes by state.", {"state"})),
      node_state_(registry.AddGauge("switchyard_node_state",
                                    "1 for the state that the node is in, 0 for every other.",
                                    {"node", "state"})),
      node_heard_(registry.AddGauge("switchyard_node_last_heartbeat_timestamp_seconds",
                                    "When the node was last heard, Unix time.", {"node"})),
      slots_(registry.AddGauge("switchyard_slots", "Slots of nodes that are ready, by use.",
                               {"use"})) {
  registry
      .AddGauge("switchyard_build_info", "1; the version of the coordinator is its label.",
                {"version"})
      .Set(1, {version});
}

void MetricsSink::OnJobChanged(const v1::Job& job) {
  absl::MutexLock lock(&mutex_);
  ExpireLocked();
  Tracked* tracked = Track(job);
  if (tracked == nullptr) return;
  tracked->state = job.state();
  tracked->goodput.Move(job, clock_.Steady(), goodput_, JobLabels(job.name()));
  series_.SetState(job);
  // A retried job may get another mesh: the labels of the earlier one must not stay.
  const telemetry::LabelValues info = series_.InfoLabels(job);
  if (!tracked->info.empty() && tracked->info != info) series_.info.Remove(tracked->info);
  tracked->info = info;
  series_.SetPlan(job);
  series_.SetProgress(job);
  const telemetry::LabelValues labels = JobLabels(job.name());
  const int restarts = std::max(0, job.attempts_size() - 1);
  series_.restarts.Increment(std::max(0, restarts - tracked->restarts), labels);
  tracked->restarts = restarts;
  const int64_t checkpoint_step = job.progress().checkpoint_step();
  if (checkpoint_step > tracked->checkpoint_step) series_.checkpoints.Increment(1, labels);
  tracked->checkpoint_step = checkpoint_step;
  const bool saving = job.phase() == v1::JOB_PHASE_SAVING;
  if (saving && !tracked->saving_since.has_value()) tracked->saving_since = clock_.Steady();
  if (!saving && tracked->saving_since.has_value()) {
    const std::chrono::duration<double> took = clock_.Steady() - *tracked->saving_since;
    series_.save_seconds.Set(took.count(), labels);
    tracked->saving_since.reset();
  }
  CountQueue();
}

void MetricsSink::OnStep(const v1::Job& job, const v1::StepSample& sample) {
  absl::MutexLock lock(&mutex_);
  ExpireLocked();
  Tracked* tracked = Track(job);
  if (tracked == nullptr) return;
  series_.SetStep(job, sample);
  tracked->goodput.Advance(clock_.Steady(), goodput_, JobLabels(job.name()));
  tracked->goodput.OnStep(sample.epoch(), sample.step());
  // The same step comes again when its held-out loss is known; work is counted once an attempt.
  const std::pair<int64_t, int64_t> position(sample.epoch(), sample.step());
  if (position > tracked->counted) {
    series_.CountStep(job, sample);
    tracked->counted = position;
  }
}

void MetricsSink::OnExpertLoad(const v1::Job& job, const v1::ExpertLoad& load) {
  absl::MutexLock lock(&mutex_);
  if (Track(job) != nullptr) series_.SetExpertLoad(job, load);
}

void MetricsSink::OnJobRemoved(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  ExpireLocked();
  Forget(name);
  CountQueue();
}

void MetricsSink::OnNodeChanged(const v1::Node& node) {
  absl::MutexLock lock(&mutex_);
  known_nodes_[node.name()] = node;
  for (const char* state : kNodeStates)
    node_state_.Set(state == NodeStateLabel(node) ? 1 : 0, {NodeLabel(node.name()), state});
  if (node.has_last_heartbeat_time()) {
    node_heard_.Set(static_cast<double>(node.last_heartbeat_time().seconds()),
                    {NodeLabel(node.name())});
  }
  CountNodes();
}

void MetricsSink::OnNodeHeard(const std::string& name, Clock::WallTime time) {
  node_heard_.Set(std::chrono::duration<double>(time.time_since_epoch()).count(),
                  {NodeLabel(name)});
}

void MetricsSink::OnNodeRemoved(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  known_nodes_.erase(name);
  registry_.RemoveSeries({{"node", NodeLabel(name)}});
  CountNodes();
}

void MetricsSink::CountNodes() {
  std::map<std::string, int> by_state;
  for (const char* state : kNodeStates) by_state[state] = 0;
  std::map<std::string, int> by_use = {{"free", 0}, {"used", 0}, {"cordoned", 0}};
  for (const auto& [name, known] : known_nodes_) {
    ++by_state[NodeStateLabel(known)];
    if (known.state() != v1::NODE_STATE_READY) continue;
    for (const auto& slot : known.slots()) {
      ++by_use[!slot.job().empty() ? "used"
                                   : (known.cordoned() || known.draining() ? "cordoned" : "free")];
    }
  }
  for (const auto& [state, count] : by_state) nodes_.Set(count, {state});
  for (const auto& [use, count] : by_use) slots_.Set(count, {use});
}

void MetricsSink::Refresh() {
  absl::MutexLock lock(&mutex_);
  ExpireLocked();
  for (auto& [name, tracked] : jobs_)
    tracked.goodput.Advance(clock_.Steady(), goodput_, JobLabels(name));
}

void MetricsSink::ExpireLocked() {
  const Clock::SteadyTime now = clock_.Steady();
  std::vector<std::string> old;
  for (const auto& [name, tracked] : jobs_) {
    if (tracked.forget_at.has_value() && now >= *tracked.forget_at) old.push_back(name);
  }
  for (const std::string& name : old) Forget(name);
}

MetricsSink::Tracked* MetricsSink::Track(const v1::Job& job) {
  auto it = jobs_.find(job.name());
  if (!job.terminal()) {
    if (it == jobs_.end()) it = Start(job);
    it->second.forget_at.reset();  // also a job that was retried
    return &it->second;
  }
  if (it != jobs_.end() && it->second.forget_at.has_value()) return &it->second;
  // A coordinator that starts hears of jobs that ended long ago.
  using Seconds = std::chrono::seconds;
  const auto ended = Clock::WallTime(Seconds(job.end_time().seconds()));
  const auto since = std::max(Clock::WallTime::duration::zero(), clock_.Wall() - ended);
  if (since >= kKeepSeriesAfterEnd) {
    Forget(job.name());
    return nullptr;
  }
  if (it == jobs_.end()) it = Start(job);
  it->second.forget_at =
      clock_.Steady() + (kKeepSeriesAfterEnd - std::chrono::duration_cast<Seconds>(since));
  return &it->second;
}

std::map<std::string, MetricsSink::Tracked>::iterator MetricsSink::Start(const v1::Job& job) {
  series_.Start(job);
  goodput_.Start(JobLabels(job.name()));
  return jobs_.try_emplace(job.name()).first;
}

void MetricsSink::Forget(const std::string& name) {
  jobs_.erase(name);
  const telemetry::LabelValues labels = JobLabels(name);
  registry_.RemoveSeries({{"project", labels[0]}, {"job", labels[1]}});
}

void MetricsSink::CountQueue() {
  std::map<std::string, int> waiting;
  for (const auto& [name, tracked] : jobs_) {
    waiting[JobLabels(name)[0]] += tracked.state == v1::JOB_STATE_QUEUED ? 1 : 0;
  }
  for (const auto& [project, count] : waiting) queue_depth_.Set(count, {project});
}

}  // namespace switchyard::coordinator
