// What the coordinator has stored and told: served to readers without touching the writer.
//
// Holds the current jobs, checkpoints and nodes, and a ring of the newest changes that watchers
// walk through at their own pace. A watcher that falls behind the ring is told so; nothing is ever
// skipped silently. Thread-safe; written by the coordinator's thread only.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "coordinator/reconcile/core.h"
#include "coordinator/report/job_observer.h"

namespace switchyard::coordinator {

// One entry of the ring.
struct PublishedChange {
  int64_t index = 0;     // place in the ring; not kept across restarts
  int64_t revision = 0;  // newest stored change up to here; what resume tokens hold
  std::string name;
  std::shared_ptr<const v1::Job> job;  // null: deleted
  std::vector<v1::Event> events;
};

class PublishedState final : public CoreListener, public JobObserver {
 public:
  // `on_news` is called after every change, from the coordinator's thread; it must return at once.
  explicit PublishedState(std::function<void()> on_news) : on_news_(std::move(on_news)) {}

  std::string store_id() const;
  std::shared_ptr<const v1::Job> FindJob(const std::string& name) const;
  bool HasUid(const std::string& uid) const;
  // Whether the attempt `epoch` of a job placed `rank` (negative: any) on `node`.
  bool RanOn(const std::string& node, const std::string& uid, int64_t epoch, int rank) const;
  // All jobs, newest first.
  std::vector<std::shared_ptr<const v1::Job>> Jobs() const;
  // Of one job, newest first, without deleted ones.
  std::vector<v1::Checkpoint> Checkpoints(const std::string& uid) const;
  std::vector<v1::Node> Nodes() const;

  // All jobs and the index after which a watcher goes on from them, at one moment.
  std::vector<std::shared_ptr<const v1::Job>> Snapshot(int64_t* index, int64_t* revision) const;
  // Index after which a watcher goes on that saw everything up to `revision`; empty when that is
  // too long ago.
  std::optional<int64_t> IndexOf(int64_t revision) const;
  // First entry after `index`, null when there is none yet. `lost` is set when entries after
  // `index` are gone.
  std::shared_ptr<const PublishedChange> Next(int64_t index, bool* lost) const;

  void OnLoaded(const StoreSnapshot& snapshot, const std::vector<v1::Job>& jobs) override;
  void OnCommitted(const Committed& committed) override;
  void OnProgress(const v1::Job& job) override;
  void OnJobChanged(const v1::Job&) override {}
  void OnStep(const v1::Job&, const v1::StepSample&) override { on_news_(); }
  void OnExpertLoad(const v1::Job&, const v1::ExpertLoad&) override {}
  void OnJobRemoved(const std::string&) override {}
  void OnNodeChanged(const v1::Node& node) override;
  void OnNodeRemoved(const std::string& name) override;

 private:
  static constexpr size_t kRingSize = JobStore::kKeptChanges;

  void Append(PublishedChange change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::shared_ptr<const v1::Job>> SortedJobs() const ABSL_SHARED_LOCKS_REQUIRED(mutex_);

  const std::function<void()> on_news_;
  mutable absl::Mutex mutex_;
  std::string store_id_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<const v1::Job>> jobs_ ABSL_GUARDED_BY(mutex_);  // by name
  std::map<std::string, std::string> name_by_uid_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::map<std::string, v1::Checkpoint>> checkpoints_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, v1::Node> nodes_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<const PublishedChange>> ring_ ABSL_GUARDED_BY(mutex_);
  int64_t next_index_ ABSL_GUARDED_BY(mutex_) = 1;
  int64_t revision_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t floor_revision_ ABSL_GUARDED_BY(mutex_) =
      0;  // changes up to here are not in the ring any more
};

}  // namespace switchyard::coordinator
