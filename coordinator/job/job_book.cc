#include "coordinator/job/job_book.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/status_macros.h"
#include "coordinator/job/job_state.h"
#include "coordinator/job/proto_time.h"

namespace switchyard::coordinator {

using store::v1::CheckpointRecord;
using store::v1::JobRecord;
using store::v1::NodeRecord;

absl::Status JobBook::Load(StoreSnapshot* snapshot) {
  SWITCHYARD_ASSIGN_OR_RETURN(*snapshot, store_.Load());
  store_id_ = snapshot->store_id;
  sequence_ = std::max(sequence_, snapshot->last_sequence);
  jobs_.clear();
  uid_by_name_.clear();
  checkpoints_.clear();
  nodes_.clear();
  dirty_.clear();
  dirty_checkpoints_.clear();
  dirty_nodes_.clear();
  removed_nodes_.clear();
  removed_.clear();
  requests_.clear();
  batch_ = WriteBatch();
  for (const JobRecord& record : snapshot->jobs) {
    const std::string& uid = record.job().uid();
    jobs_[uid] = record;
    uid_by_name_[record.job().name()] = uid;
    sequence_ = std::max(sequence_, record.create_sequence());
    if (live_.count(uid) == 0) {
      LiveJob& live = live_[uid];
      live.progress = record.job().progress();
      live.phase = record.job().phase();
      live.not_before = clock_.Steady() + std::chrono::milliseconds(record.restarts().backoff_ms());
    }
  }
  for (const CheckpointRecord& record : snapshot->checkpoints) {
    checkpoints_[record.job_uid()][record.checkpoint().name()] = record;
  }
  for (const NodeRecord& record : snapshot->nodes) nodes_[record.node().name()] = record;
  return absl::OkStatus();
}

const JobRecord* JobBook::Find(const std::string& uid) const {
  const auto it = jobs_.find(uid);
  return it == jobs_.end() ? nullptr : &it->second;
}

const JobRecord* JobBook::FindByName(const std::string& name) const {
  const auto it = uid_by_name_.find(name);
  return it == uid_by_name_.end() ? nullptr : Find(it->second);
}

JobRecord& JobBook::Edit(const std::string& uid) {
  const auto it = jobs_.find(uid);
  SWITCHYARD_CHECK(it != jobs_.end(), "edited job exists");
  dirty_.insert(uid);
  return it->second;
}

JobRecord& JobBook::Add(const JobRecord& record) {
  const std::string& uid = record.job().uid();
  SWITCHYARD_CHECK(jobs_.count(uid) == 0, "uid is new");
  jobs_[uid] = record;
  uid_by_name_[record.job().name()] = uid;
  live_[uid] = LiveJob();
  return Edit(uid);
}

void JobBook::Remove(const std::string& uid) {
  const auto it = jobs_.find(uid);
  SWITCHYARD_CHECK(it != jobs_.end(), "removed job exists");
  removed_.emplace_back(uid, it->second.job().name());
  std::erase_if(batch_.events, [&](const v1::Event& event) {
    return event.resource() == it->second.job().name();
  });
  std::erase_if(dirty_checkpoints_, [&](const auto& key) { return key.first == uid; });
  uid_by_name_.erase(it->second.job().name());
  jobs_.erase(it);
  live_.erase(uid);
  checkpoints_.erase(uid);
  dirty_.erase(uid);
}

void JobBook::Move(const std::string& uid, v1::JobState to, const v1::StateReason& reason,
                   const std::string& event_type, v1::EventSeverity severity) {
  JobRecord& record = Edit(uid);
  v1::Job& job = *record.mutable_job();
  SWITCHYARD_CHECK(IsLegalTransition(job.state(), to),
                   absl::StrCat(StateName(job.state()), " to ", StateName(to)).c_str());
  job.set_state(to);
  job.set_terminal(IsTerminal(to));
  *job.mutable_reason() = reason;
  LiveJob& live = live_[uid];
  if (to != v1::JOB_STATE_RUNNING && to != v1::JOB_STATE_LAUNCHING && to != v1::JOB_STATE_PAUSING) {
    live.phase = v1::JOB_PHASE_UNSPECIFIED;
  }
  if (to != v1::JOB_STATE_QUEUED) live.queue_position = 0;
  if (to == v1::JOB_STATE_RUNNING && !job.has_start_time()) {
    *job.mutable_start_time() = ToTimestamp(clock_.Wall());
  }
  if (IsTerminal(to)) {
    *job.mutable_end_time() = ToTimestamp(clock_.Wall());
  } else {
    job.clear_end_time();
  }
  AddEvent(job.name(), job.epoch(), event_type, severity, reason.message());
}

void JobBook::AddEvent(const std::string& resource, int64_t epoch, const std::string& type,
                       v1::EventSeverity severity, const std::string& message) {
  v1::Event& event = batch_.events.emplace_back();
  event.set_sequence(++sequence_);
  *event.mutable_time() = ToTimestamp(clock_.Wall());
  event.set_resource(resource);
  event.set_epoch(epoch);
  event.set_type(type);
  event.set_severity(severity);
  event.set_message(message);
}

const std::map<std::string, CheckpointRecord>& JobBook::checkpoints(const std::string& uid) const {
  static const auto& none = *new std::map<std::string, CheckpointRecord>();
  const auto it = checkpoints_.find(uid);
  return it == checkpoints_.end() ? none : it->second;
}

void JobBook::PutCheckpoint(const CheckpointRecord& record) {
  checkpoints_[record.job_uid()][record.checkpoint().name()] = record;
  dirty_checkpoints_.emplace(record.job_uid(), record.checkpoint().name());
}

void JobBook::PutNode(const NodeRecord& record) {
  nodes_[record.node().name()] = record;
  dirty_nodes_.insert(record.node().name());
  removed_nodes_.erase(record.node().name());
}

void JobBook::RemoveNode(const std::string& name) {
  std::erase_if(batch_.events, [&](const v1::Event& event) { return event.resource() == name; });
  nodes_.erase(name);
  dirty_nodes_.erase(name);
  removed_nodes_.insert(name);
}

void JobBook::AddRequest(const std::string& request_id, const std::string& hash,
                         const std::string& uid) {
  requests_.push_back({{request_id, hash, ""}, uid});
}

std::string JobBook::PendingRequest(const std::string& request_id, std::string* hash) const {
  for (const auto& [request, uid] : requests_) {
    if (request.request_id != request_id) continue;
    *hash = request.request_hash;
    return uid;
  }
  return "";
}

bool JobBook::dirty() const {
  return !batch_.empty() || !dirty_.empty() || !dirty_checkpoints_.empty() ||
         !dirty_nodes_.empty() || !removed_nodes_.empty() || !removed_.empty() ||
         !requests_.empty();
}

absl::StatusOr<Committed> JobBook::Commit() {
  if (!dirty()) return Committed();
  for (const auto& [uid, name] : removed_) {
    batch_.delete_jobs.push_back(uid);
    batch_.changes.push_back({++sequence_, name, std::nullopt});
  }
  for (const std::string& uid : dirty_) {
    JobRecord& record = jobs_.at(uid);
    const int64_t revision = ++sequence_;
    v1::Job& job = *record.mutable_job();
    job.set_etag(absl::StrFormat("r%x", revision));
    *job.mutable_update_time() = ToTimestamp(clock_.Wall());
    job = View(record);
    batch_.put_jobs.push_back(record);
    batch_.changes.push_back({revision, job.name(), job});
  }
  for (auto& [request, uid] : requests_) {
    request.response = jobs_.at(uid).job().SerializeAsString();
    batch_.requests.push_back(std::move(request));
  }
  for (const auto& [uid, name] : dirty_checkpoints_) {
    batch_.put_checkpoints.push_back(checkpoints_.at(uid).at(name));
  }
  for (const std::string& name : dirty_nodes_) batch_.put_nodes.push_back(nodes_.at(name));
  batch_.delete_nodes.assign(removed_nodes_.begin(), removed_nodes_.end());
  // A failed batch must not be written with the next one: Load drops it.
  if (absl::Status status = store_.Commit(batch_); !status.ok()) {
    StoreSnapshot snapshot;
    SWITCHYARD_RETURN_IF_ERROR(Load(&snapshot));
    return status;
  }
  Committed committed{std::move(batch_.changes), std::move(batch_.events),
                      std::move(batch_.put_checkpoints), std::move(batch_.delete_nodes)};
  batch_ = WriteBatch();
  dirty_.clear();
  dirty_checkpoints_.clear();
  dirty_nodes_.clear();
  removed_nodes_.clear();
  removed_.clear();
  requests_.clear();
  return committed;
}

v1::Job JobBook::View(const JobRecord& record) const {
  v1::Job job = record.job();
  const auto it = live_.find(job.uid());
  if (it == live_.end()) return job;
  *job.mutable_progress() = it->second.progress;
  if (record.has_launch() && job.attempts_size() > 0)
    job.mutable_attempts()->rbegin()->set_last_step(it->second.progress.step());
  job.set_phase(it->second.phase);
  job.set_queue_position(job.state() == v1::JOB_STATE_QUEUED ? it->second.queue_position : 0);
  return job;
}

}  // namespace switchyard::coordinator
