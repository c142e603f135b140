#include "coordinator/job/memory_job_store.h"

#include <algorithm>

namespace switchyard::coordinator {

absl::StatusOr<StoreSnapshot> MemoryJobStore::Load() {
  StoreSnapshot snapshot;
  snapshot.store_id = "memory";
  snapshot.last_sequence = last_sequence_;
  for (const auto& [uid, record] : jobs_) snapshot.jobs.push_back(record);
  for (const auto& [key, record] : checkpoints_) snapshot.checkpoints.push_back(record);
  for (const auto& [name, record] : nodes_) snapshot.nodes.push_back(record);
  const size_t kept = std::min<size_t>(changes_.size(), kKeptChanges);
  snapshot.changes.assign(changes_.end() - kept, changes_.end());
  for (const auto& event : events_) {
    if (!snapshot.changes.empty() && event.sequence() > snapshot.changes.front().revision) {
      snapshot.events.push_back(event);
    }
  }
  return snapshot;
}

absl::Status MemoryJobStore::Commit(const WriteBatch& batch) {
  if (failing_commits_ > 0) {
    --failing_commits_;
    return absl::ResourceExhaustedError("database or disk is full");
  }
  for (const std::string& name : batch.delete_nodes) {
    std::erase_if(events_, [&](const v1::Event& event) { return event.resource() == name; });
    nodes_.erase(name);
  }
  for (const auto& record : batch.put_jobs) jobs_[record.job().uid()] = record;
  for (const auto& record : batch.put_checkpoints) {
    checkpoints_[record.job_uid() + "/" + record.checkpoint().name()] = record;
  }
  for (const auto& record : batch.put_nodes) nodes_[record.node().name()] = record;
  for (const auto& event : batch.events) {
    events_.push_back(event);
    last_sequence_ = std::max(last_sequence_, event.sequence());
  }
  for (const auto& change : batch.changes) {
    changes_.push_back(change);
    last_sequence_ = std::max(last_sequence_, change.revision);
  }
  for (const auto& request : batch.requests) requests_[request.request_id] = request;
  for (const auto& uid : batch.delete_jobs) {
    const std::string name = jobs_[uid].job().name();
    std::erase_if(events_, [&](const v1::Event& event) { return event.resource() == name; });
    std::erase_if(checkpoints_, [&](const auto& entry) { return entry.second.job_uid() == uid; });
    jobs_.erase(uid);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<RequestRecord>> MemoryJobStore::FindRequest(
    const std::string& request_id) {
  const auto it = requests_.find(request_id);
  if (it == requests_.end()) return std::optional<RequestRecord>();
  return std::optional<RequestRecord>(it->second);
}

absl::StatusOr<std::vector<v1::Event>> MemoryJobStore::ListEvents(const std::string& resource,
                                                                  int64_t after, int limit) {
  std::vector<v1::Event> result;
  for (const auto& event : events_) {
    if (event.resource() == resource && event.sequence() > after &&
        result.size() < static_cast<size_t>(limit)) {
      result.push_back(event);
    }
  }
  return result;
}

}  // namespace switchyard::coordinator
