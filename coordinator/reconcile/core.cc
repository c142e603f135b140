#include "coordinator/reconcile/core.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "coordinator/checkpoint/checkpoint_keeper.h"
#include "coordinator/job/names.h"
#include "coordinator/job/proto_time.h"
#include "coordinator/launch/allocation.h"
#include "coordinator/spec/validate.h"

namespace switchyard::coordinator {
namespace {

// Oldest and newest agent protocol that is spoken here: agents of the release before go on.
constexpr int kOldestProtocol = 1;
constexpr int kNewestProtocol = 2;
constexpr int kMaxSteps = 32;
constexpr double kSmoothing = 0.2;  // of tokens/s

bool IsNodeName(const std::string& name) {
  return !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_';
  });
}

}  // namespace

Core::Core(const CoreOptions& options, const Clock& clock, JobStore& store, JobPlanner& planner,
           AgentTransport& transport, std::function<std::string()> new_id)
    : options_(options),
      book_(store, clock),
      nodes_(options.nodes),
      context_{options_, clock, book_, nodes_, planner, std::move(new_id), {}, {}, nullptr},
      reconciler_(context_),
      transport_(transport) {}

absl::Status Core::Start() {
  StoreSnapshot snapshot;
  SWITCHYARD_RETURN_IF_ERROR(book_.Load(&snapshot));
  const auto now = context_.clock.Steady();
  for (const auto& [name, record] : book_.nodes()) nodes_.Restore(record.node(), now);
  std::vector<v1::Job> jobs;
  for (const auto& [uid, record] : book_.jobs()) {
    if (record.launch().was_running()) book_.live(uid).running_since = now;
    if (record.launch().allocated()) {
      // Agents that had dialled in before have so long to come back; the others are awaited.
      for (const auto& [node, incarnation] : record.launch().incarnations()) {
        v1::Node lent;
        lent.set_name(absl::StrCat("nodes/", node));
        nodes_.Restore(lent, now);
      }
    }
    jobs.push_back(book_.View(record));
    for (JobObserver* observer : observers_) observer->OnJobChanged(jobs.back());
  }
  for (CoreListener* listener : listeners_) {
    listener->OnLoaded(snapshot, jobs);
  }
  return absl::OkStatus();
}

absl::Status Core::OnHello(uint64_t session, const agent::v1::Hello& hello) {
  if (!IsNodeName(hello.node())) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "node name \"%s\" must be 1 to 63 letters, digits, '-', '.' or '_'", hello.node()));
  }
  if (hello.protocol_min() > kNewestProtocol || hello.protocol_max() < kOldestProtocol) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "the agent speaks protocol %d to %d, this coordinator %d to %d: upgrade the older one",
        hello.protocol_min(), hello.protocol_max(), kOldestProtocol, kNewestProtocol));
  }
  SWITCHYARD_RETURN_IF_ERROR(CheckAllocation(context_, hello));
  const auto now = context_.clock.Steady();
  if (nodes_.IsTaken(hello, now)) {
    return absl::AlreadyExistsError(absl::StrFormat(
        "a live agent is already connected as node \"%s\": give this one another --node",
        hello.node()));
  }
  const NodeEntry* old = nodes_.Find(hello.node());
  if (old != nullptr && old->connected() && old->session != session) transport_.Close(old->session);
  const bool known = old != nullptr && old->alive();
  const int protocol = std::min<int>(hello.protocol_max(), kNewestProtocol);
  nodes_.Hello(hello, session, now).protocol = protocol;
  if (const auto it = book_.nodes().find(absl::StrCat("nodes/", hello.node()));
      it != book_.nodes().end()) {
    v1::Node& node = nodes_.FindMutable(hello.node())->node;
    node.set_cordoned(it->second.node().cordoned());
    node.set_draining(it->second.node().draining());
  }
  StoreNode(hello.node());
  book_.AddEvent(
      absl::StrCat("nodes/", hello.node()), 0, known ? "NodeReconnected" : "NodeJoined",
      v1::EVENT_SEVERITY_INFO,
      absl::StrFormat("%d slots, agent %s", hello.inventory().slots_size(), hello.version()));
  agent::v1::ConnectResponse response;
  auto& welcome = *response.mutable_welcome();
  welcome.set_protocol(protocol);
  welcome.set_heartbeat_interval_ms(options_.nodes.heartbeat_interval.count());
  welcome.set_lease_ms(options_.nodes.lease.count());
  welcome.set_execution_grant_ms(options_.execution_grant.count());
  welcome.set_store_id(book_.store_id());
  transport_.Send(session, response);
  return absl::OkStatus();
}

void Core::OnMessage(uint64_t session, const std::string& node,
                     const agent::v1::ConnectRequest& message) {
  const NodeEntry* entry = nodes_.Find(node);
  if (entry == nullptr || entry->session != session) return;  // of a session that is over
  nodes_.Heard(node, session, context_.clock.Steady());
  switch (message.message_case()) {
    case agent::v1::ConnectRequest::kHeartbeat: {
      agent::v1::ConnectResponse response;
      response.mutable_heartbeat_ack()->set_sequence(message.heartbeat().sequence());
      transport_.Send(session, response);
      for (JobObserver* observer : observers_)
        observer->OnNodeHeard(entry->node.name(), context_.clock.Wall());
      break;
    }
    case agent::v1::ConnectRequest::kAttemptStatus:
      nodes_.Report(node, session, message.attempt_status());
      break;
    case agent::v1::ConnectRequest::kRankReport:
      OnRankReport(message.rank_report());
      break;
    case agent::v1::ConnectRequest::kProbeResult: {
      const std::string& id = message.probe_result().probe_id();
      const std::string uid = id.substr(0, id.find('/'));
      const store::v1::JobRecord* record = book_.Find(uid);
      if (record != nullptr && id == absl::StrCat(uid, "/", record->job().epoch(), "/", node)) {
        book_.live(uid).probes[node] = message.probe_result();
      }
      break;
    }
    case agent::v1::ConnectRequest::kCheckpointPublished:
      OnCheckpointPublished(context_, message.checkpoint_published());
      break;
    default:
      break;  // Hello twice, or log chunks, which never come here
  }
}

void Core::OnDisconnected(uint64_t session, const std::string& node) {
  nodes_.Disconnected(node, session);
}

void Core::OnRankReport(const agent::v1::RankReport& report) {
  const std::string& uid = report.job_uid();
  const store::v1::JobRecord* record = book_.Find(uid);
  if (record == nullptr || !record->has_launch() || record->job().epoch() != report.epoch()) return;
  auto it = aggregators_.find(uid);
  if (it == aggregators_.end() || it->second.epoch() != report.epoch()) {
    const int world = record->job().attempts().rbegin()->placements_size();
    it = aggregators_.insert_or_assign(uid, StepAggregator(world, report.epoch())).first;
  }
  const trainer::v1::TrainerLine& line = report.line();
  Silence& silence = book_.live(uid).silence;
  silence.time = std::chrono::milliseconds(0);
  if (line.has_step()) {
    silence.slowest_step = std::max(silence.slowest_step, line.step().step_seconds());
    int64_t& newest = silence.rank_steps[report.rank()];
    newest = std::max(newest, line.step().step());
    for (const auto& sample : it->second.Add(report.rank(), line.step())) OnStep(uid, sample);
  } else if (line.has_eval()) {
    v1::Progress& progress = book_.live(uid).progress;
    if (line.eval().step() == 0) progress.set_initial_eval_loss(line.eval().loss());
    progress.set_eval_loss(line.eval().loss());
    book_.AddEvent(record->job().name(), report.epoch(), "Evaluated", v1::EVENT_SEVERITY_INFO,
                   absl::StrFormat("held-out loss %.4f after step %d", line.eval().loss(),
                                   line.eval().step()));
    OnEvaluated(context_, uid, line.eval());
    for (const auto& sample : it->second.AddEval(line.eval())) OnStep(uid, sample);
  } else if (line.has_expert_load()) {
    v1::ExpertLoad load;
    load.set_step(line.expert_load().step());
    load.set_num_experts(line.expert_load().num_experts());
    for (const auto& layer : line.expert_load().layers()) {
      auto& copy = *load.add_layers();
      copy.set_layer(layer.layer());
      *copy.mutable_tokens_per_expert() = layer.tokens_per_expert();
    }
    const v1::Job view = book_.View(*record);
    for (JobObserver* observer : observers_) observer->OnExpertLoad(view, load);
  }
}

void Core::OnStep(const std::string& uid, const v1::StepSample& told) {
  v1::StepSample sample = told;
  *sample.mutable_time() = ToTimestamp(context_.clock.Wall());
  LiveJob& live = book_.live(uid);
  v1::Progress& progress = live.progress;
  const bool again = sample.step() == progress.step() && sample.has_eval_loss() &&
                     progress.loss() == sample.loss();
  progress.set_step(std::max(progress.step(), sample.step()));
  progress.set_loss(sample.loss());
  if (!again) {
    progress.set_tokens(progress.tokens() + sample.tokens());
    if (sample.skipped()) progress.set_skipped_steps(progress.skipped_steps() + 1);
  }
  const double rate = sample.tokens_per_second();
  progress.set_tokens_per_second(progress.tokens_per_second() == 0
                                     ? rate
                                     : (1 - kSmoothing) * progress.tokens_per_second() +
                                           kSmoothing * rate);
  progress.set_peak_memory_bytes(
      std::max(progress.peak_memory_bytes(), sample.peak_memory_bytes()));
  progress.set_expert_load_max_over_mean(sample.expert_load_max_over_mean());
  if (sample.has_eval_loss()) progress.set_eval_loss(sample.eval_loss());
  const v1::Plan& plan = book_.Find(uid)->job().plan();
  if (plan.total_steps() > 0) progress.set_total_steps(plan.total_steps());
  if (progress.tokens_per_second() > 0 && progress.total_steps() >= progress.step()) {
    *progress.mutable_eta() =
        ToDuration(static_cast<double>(progress.total_steps() - progress.step()) *
                   static_cast<double>(sample.tokens()) / progress.tokens_per_second());
  }
  live.changed = true;
  const v1::Job view = book_.View(*book_.Find(uid));
  for (JobObserver* observer : observers_) observer->OnStep(view, sample);
}

void Core::StoreNode(const std::string& name) {
  if (nodes_.Find(name)->allocated) return;  // it is not there any more when the store is read
  store::v1::NodeRecord record;
  *record.mutable_node() = nodes_.Find(name)->node;
  record.mutable_node()->clear_state();
  const auto it = book_.nodes().find(record.node().name());
  if (it == book_.nodes().end() || it->second.SerializeAsString() != record.SerializeAsString()) {
    book_.PutNode(record);
  }
}

void Core::RemoveLeftNodes() {
  std::set<std::string> current;
  for (const auto& [uid, record] : book_.jobs()) {
    if (!record.launch().allocated()) continue;
    for (std::string& name : NodesOf(record)) current.insert(std::move(name));
  }
  std::vector<std::string> gone;
  for (const auto& [name, entry] : nodes_.nodes()) {
    if (entry.allocated && !entry.connected() && current.count(name) == 0) gone.push_back(name);
  }
  for (const std::string& name : gone) RemoveNode(name);
}

void Core::RemoveNode(const std::string& name) {
  nodes_.Remove(name);
  published_nodes_.erase(name);
  for (JobObserver* observer : observers_) observer->OnNodeRemoved("nodes/" + name);
}

void Core::TickNodes() {
  RemoveLeftNodes();
  for (const std::string& name : nodes_.Tick(context_.clock.Steady())) {
    const v1::NodeState state = nodes_.Find(name)->node.state();
    const char* type = state == v1::NODE_STATE_READY     ? "NodeReady"
                       : state == v1::NODE_STATE_SUSPECT ? "NodeSuspect"
                                                         : "NodeLost";
    book_.AddEvent(
        absl::StrCat("nodes/", name), 0, type,
        state == v1::NODE_STATE_READY ? v1::EVENT_SEVERITY_INFO : v1::EVENT_SEVERITY_WARNING,
        state == v1::NODE_STATE_READY ? "heartbeats arrive" : "heartbeats are missing");
    log::Info("node.state", {{"node", name}, {"state", v1::NodeState_Name(state)}});
  }
}

absl::Status Core::Step() {
  std::map<std::string, uint64_t> sessions;
  for (const auto& [name, entry] : nodes_.nodes()) sessions[name] = entry.session;
  TickNodes();
  for (const auto& [name, session] : sessions) {
    if (session != 0 && nodes_.Find(name)->session == 0)
      transport_.Close(session);  // its lease is over
  }
  for (int i = 0; i < kMaxSteps; ++i) {
    reconciler_.Step();
    if (!book_.dirty() && context_.outbox.empty()) break;
    SWITCHYARD_RETURN_IF_ERROR(Flush());
  }
  if (context_.allocator != nullptr) {
    context_.allocator->Want(book_.store_id(), WantedAllocations(context_));
  }
  PublishLive();
  PublishNodes();
  return absl::OkStatus();
}

absl::Status Core::Flush() {
  const absl::StatusOr<Committed> committed = book_.Commit();
  std::vector<Outgoing> outbox = std::move(context_.outbox);
  context_.outbox.clear();
  if (!committed.ok()) {
    const auto now = context_.clock.Steady();
    if (now - last_store_error_ > options_.resend) {
      last_store_error_ = now;
      log::Error("store.commit_failed", {{"error", committed.status().ToString()}});
    }
    // What was marked as sent was not; all of it may be sent twice.
    for (const auto& [uid, record] : book_.jobs()) book_.live(uid).sent.clear();
    context_.stray_stops.clear();
    return committed.status();
  }
  for (CoreListener* listener : listeners_) listener->OnCommitted(*committed);
  for (const std::string& name : committed->removed_nodes) {
    RemoveNode(*ParseNodeName(name));
    log::Info("node.forgotten", {{"node", name}});
  }
  for (const ChangeRecord& change : committed->changes) {
    for (JobObserver* observer : observers_) {
      if (change.job) {
        observer->OnJobChanged(*change.job);
      } else {
        observer->OnJobRemoved(change.name);
      }
    }
    if (!change.job) continue;
    LiveJob& live = book_.live(change.job->uid());
    live.changed = false;
    live.last_published = context_.clock.Steady();
  }
  for (const v1::Event& event : committed->events) {
    const store::v1::JobRecord* record = book_.FindByName(event.resource());
    log::Info("job.event", {{"resource", event.resource()},
                            {"epoch", event.epoch()},
                            {"type", event.type()},
                            {"message", event.message()},
                            {"trace_id", record == nullptr ? "" : record->job().trace_id()}});
  }
  for (const Outgoing& out : outbox) {
    const NodeEntry* entry = nodes_.Find(out.node);
    if (entry == nullptr || entry->session != out.session) continue;
    transport_.Send(out.session, out.message);
    if (out.message.has_attempt_ack()) {
      nodes_.Forget(out.node,
                    {out.message.attempt_ack().job_uid(), out.message.attempt_ack().epoch()});
    }
  }
  return absl::OkStatus();
}

void Core::PublishLive() {
  const auto now = context_.clock.Steady();
  for (const auto& [uid, record] : book_.jobs()) {
    LiveJob& live = book_.live(uid);
    if (!live.changed || now - live.last_published < options_.progress_interval) continue;
    live.changed = false;
    live.last_published = now;
    const v1::Job view = book_.View(record);
    for (CoreListener* listener : listeners_) listener->OnProgress(view);
    for (JobObserver* observer : observers_) observer->OnJobChanged(view);
  }
  std::erase_if(aggregators_, [&](const auto& entry) {
    const auto* record = book_.Find(entry.first);
    return record == nullptr || !record->has_launch();
  });
}

v1::Node Core::NodeView(const std::string& name) const {
  const NodeEntry* entry = nodes_.Find(name);
  if (entry == nullptr) return v1::Node();
  v1::Node node = entry->node;
  for (v1::Slot& slot : *node.mutable_slots()) slot.set_memory_bytes(entry->SlotBytes(slot));
  for (const auto& [uid, record] : book_.jobs()) {
    if (!record.has_launch()) continue;
    for (const v1::RankPlacement& placement : record.job().attempts().rbegin()->placements()) {
      if (placement.node() != name) continue;
      for (v1::Slot& slot : *node.mutable_slots()) {
        if (slot.index() != placement.slot()) continue;
        slot.set_job(record.job().name());
        slot.set_epoch(record.job().epoch());
      }
    }
  }
  if (entry->incarnation.empty()) return node;  // known from the store only
  const auto silence = context_.clock.Steady() - entry->last_heard;
  *node.mutable_last_heartbeat_time() = ToTimestamp(
      context_.clock.Wall() - std::chrono::duration_cast<Clock::WallTime::duration>(silence));
  return node;
}

void Core::PublishNodes() {
  for (const auto& [name, entry] : nodes_.nodes()) {
    v1::Node node = NodeView(name);
    v1::Node compared = node;
    compared.clear_last_heartbeat_time();
    std::string bytes = compared.SerializeAsString();
    if (published_nodes_[name] == bytes) continue;
    published_nodes_[name] = std::move(bytes);
    for (JobObserver* observer : observers_) observer->OnNodeChanged(node);
  }
}

}  // namespace switchyard::coordinator
