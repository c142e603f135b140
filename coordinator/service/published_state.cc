#include "coordinator/service/published_state.h"

#include <algorithm>
#include <tuple>

namespace switchyard::coordinator {
namespace {

using JobPointer = std::shared_ptr<const v1::Job>;

// Moves the events that tell of `change` out of `events` (in order of sequence, before the change's
// revision).
std::vector<v1::Event> TakeEvents(const ChangeRecord& change, std::vector<v1::Event>& events) {
  std::vector<v1::Event> taken;
  for (v1::Event& event : events) {
    if (event.resource() == change.name && event.sequence() < change.revision)
      taken.push_back(event);
  }
  std::erase_if(events, [&](const v1::Event& event) {
    return event.resource() == change.name && event.sequence() < change.revision;
  });
  return taken;
}

}  // namespace

std::string PublishedState::store_id() const {
  absl::MutexLock lock(&mutex_);
  return store_id_;
}

JobPointer PublishedState::FindJob(const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  const auto it = jobs_.find(name);
  return it == jobs_.end() ? nullptr : it->second;
}

bool PublishedState::HasUid(const std::string& uid) const {
  absl::MutexLock lock(&mutex_);
  return name_by_uid_.count(uid) > 0;
}

bool PublishedState::RanOn(const std::string& node, const std::string& uid, int64_t epoch,
                           int rank) const {
  absl::MutexLock lock(&mutex_);
  const auto name = name_by_uid_.find(uid);
  if (name == name_by_uid_.end()) return false;
  const auto job = jobs_.find(name->second);
  if (job == jobs_.end()) return false;
  for (const v1::Attempt& attempt : job->second->attempts()) {
    if (attempt.epoch() != epoch) continue;
    for (const v1::RankPlacement& placement : attempt.placements()) {
      if (placement.node() == node && (rank < 0 || placement.rank() == rank)) return true;
    }
  }
  return false;
}

std::vector<JobPointer> PublishedState::SortedJobs() const {
  std::vector<JobPointer> jobs;
  for (const auto& [name, job] : jobs_) jobs.push_back(job);
  std::sort(jobs.begin(), jobs.end(), [](const JobPointer& a, const JobPointer& b) {
    const auto key = [](const v1::Job& job) {
      return std::tuple(-job.create_time().seconds(), -job.create_time().nanos(), job.uid());
    };
    return key(*a) < key(*b);
  });
  return jobs;
}

std::vector<JobPointer> PublishedState::Jobs() const {
  absl::MutexLock lock(&mutex_);
  return SortedJobs();
}

std::vector<v1::Checkpoint> PublishedState::Checkpoints(const std::string& uid) const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::Checkpoint> checkpoints;
  const auto it = checkpoints_.find(uid);
  if (it == checkpoints_.end()) return checkpoints;
  for (const auto& [name, checkpoint] : it->second) {
    if (checkpoint.state() != v1::CHECKPOINT_STATE_DELETED) checkpoints.push_back(checkpoint);
  }
  std::sort(checkpoints.begin(), checkpoints.end(), [](const auto& a, const auto& b) {
    return std::tuple(a.step(), a.final()) > std::tuple(b.step(), b.final());
  });
  return checkpoints;
}

std::vector<v1::Node> PublishedState::Nodes() const {
  absl::MutexLock lock(&mutex_);
  std::vector<v1::Node> nodes;
  for (const auto& [name, node] : nodes_) nodes.push_back(node);
  return nodes;
}

std::vector<JobPointer> PublishedState::Snapshot(int64_t* index, int64_t* revision) const {
  absl::MutexLock lock(&mutex_);
  *index = next_index_ - 1;
  *revision = revision_;
  return SortedJobs();
}

std::optional<int64_t> PublishedState::IndexOf(int64_t revision) const {
  absl::MutexLock lock(&mutex_);
  if (revision < floor_revision_ || revision > revision_) return std::nullopt;
  const auto it =
      std::upper_bound(ring_.begin(), ring_.end(), revision,
                       [](int64_t value, const auto& entry) { return value < entry->revision; });
  return it == ring_.end() ? next_index_ - 1 : (*it)->index - 1;
}

std::shared_ptr<const PublishedChange> PublishedState::Next(int64_t index, bool* lost) const {
  absl::MutexLock lock(&mutex_);
  *lost = false;
  if (index >= next_index_ - 1) return nullptr;
  const int64_t first = ring_.front()->index;
  if (index + 1 < first) {
    *lost = true;
    return nullptr;
  }
  return ring_[index + 1 - first];
}

void PublishedState::Append(PublishedChange change) {
  change.index = next_index_++;
  revision_ = std::max(revision_, change.revision);
  ring_.push_back(std::make_shared<PublishedChange>(std::move(change)));
  if (ring_.size() <= kRingSize) return;
  floor_revision_ = ring_.front()->revision;
  ring_.pop_front();
}

void PublishedState::OnLoaded(const StoreSnapshot& snapshot, const std::vector<v1::Job>& jobs) {
  absl::MutexLock lock(&mutex_);
  store_id_ = snapshot.store_id;
  for (const v1::Job& job : jobs) {
    jobs_[job.name()] = std::make_shared<v1::Job>(job);
    name_by_uid_[job.uid()] = job.name();
  }
  for (const auto& record : snapshot.checkpoints) {
    checkpoints_[record.job_uid()][record.checkpoint().name()] = record.checkpoint();
  }
  if (!snapshot.changes.empty() && snapshot.changes.size() >= JobStore::kKeptChanges) {
    floor_revision_ = snapshot.changes.front().revision - 1;
  }
  std::vector<v1::Event> events = snapshot.events;
  for (const ChangeRecord& change : snapshot.changes) {
    Append({0, change.revision, change.name,
            change.job ? std::make_shared<v1::Job>(*change.job) : nullptr,
            TakeEvents(change, events)});
  }
}

void PublishedState::OnCommitted(const Committed& committed) {
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& record : committed.checkpoints) {
      checkpoints_[record.job_uid()][record.checkpoint().name()] = record.checkpoint();
    }
    std::vector<v1::Event> events = committed.events;
    for (const ChangeRecord& change : committed.changes) {
      JobPointer job = change.job ? std::make_shared<v1::Job>(*change.job) : nullptr;
      if (job != nullptr) {
        name_by_uid_[job->uid()] = change.name;
        jobs_[change.name] = job;
      } else if (const auto it = jobs_.find(change.name); it != jobs_.end()) {
        checkpoints_.erase(it->second->uid());
        name_by_uid_.erase(it->second->uid());
        jobs_.erase(it);
      }
      Append({0, change.revision, change.name, std::move(job), TakeEvents(change, events)});
    }
  }
  if (!committed.changes.empty()) on_news_();
}

void PublishedState::OnProgress(const v1::Job& job) {
  {
    absl::MutexLock lock(&mutex_);
    auto pointer = std::make_shared<v1::Job>(job);
    jobs_[job.name()] = pointer;
    Append({0, revision_, job.name(), pointer, {}});
  }
  on_news_();
}

void PublishedState::OnNodeChanged(const v1::Node& node) {
  absl::MutexLock lock(&mutex_);
  nodes_[node.name()] = node;
}

void PublishedState::OnNodeRemoved(const std::string& name) {
  absl::MutexLock lock(&mutex_);
  nodes_.erase(name);
}

}  // namespace switchyard::coordinator
