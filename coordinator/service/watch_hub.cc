#include "coordinator/service/watch_hub.h"

#include <cstdlib>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/status.h"
#include "common/rpc/violations.h"
#include "common/status_macros.h"
#include "coordinator/service/job_filter.h"
#include "coordinator/service/tokens.h"

namespace switchyard::coordinator {
namespace {

constexpr absl::Duration kBookmarkInterval = absl::Seconds(10);
constexpr absl::Duration kTick = absl::Milliseconds(500);
constexpr int kStepBatch = 64;

absl::Status Expired() {
  return rpc::Error(absl::StatusCode::kOutOfRange, "WATCH_EXPIRED",
                    "resume_token is too old or of another store: watch again without it");
}

}  // namespace

// Messages come from four places, in this order: the snapshot, its bookmark, changes, steps. One
// write at a time.
class WatchHub::Watcher final : public StreamHub<v1::WatchJobsResponse>::Stream {
 public:
  Watcher(WatchHub& hub, const v1::WatchJobsRequest& request)
      : Stream(hub.watchers_), hub_(hub), request_(request) {}

 private:
  absl::Status StartLocked() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    SWITCHYARD_ASSIGN_OR_RETURN(filter_,
                                JobFilter::Parse(request_.parent(), request_.filter(), true));
    step_id_ = hub_.metrics_.LastId();
    if (!filter_->single_job().empty()) {
      const auto job = hub_.state_.FindJob(filter_->single_job());
      if (job != nullptr) uid_ = job->uid();
      if (job == nullptr && request_.resume_token().empty()) {
        return rpc::NotFound("switchyard.v1.Job", filter_->single_job());
      }
    }
    if (request_.resume_token().empty()) {
      for (auto& job : hub_.state_.Snapshot(&index_, &revision_)) {
        if (filter_->Matches(*job)) snapshot_.push_back(std::move(job));
      }
      snapshot_open_ = true;
      return absl::OkStatus();
    }
    std::vector<std::string> fields;
    SWITCHYARD_ASSIGN_OR_RETURN(fields, ReadToken("watch", filter_->fingerprint(),
                                                  request_.resume_token(), 3, "resume_token"));
    if (fields[0] != hub_.state_.store_id() || !absl::SimpleAtoi(fields[1], &revision_) ||
        !absl::SimpleAtoi(fields[2], &step_id_)) {
      return Expired();
    }
    const auto index = hub_.state_.IndexOf(revision_);
    if (!index) return Expired();
    index_ = *index;
    // What matched before is not known any more: take everything that matches now as seen.
    for (const auto& job : hub_.state_.Jobs()) seen_.insert(job->name());
    return absl::OkStatus();
  }

  void NextLocked() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (snapshot_open_) {
      if (!snapshot_.empty()) {
        seen_.insert(snapshot_.front()->name());
        *message_.mutable_job() = *snapshot_.front();
        snapshot_.pop_front();
        // A snapshot cut short is begun again: no token before its end.
        return Send(/*token=*/false);
      }
      snapshot_open_ = false;
      message_.mutable_bookmark()->set_snapshot_complete(true);
      return Send(/*token=*/true);
    }
    while (true) {
      bool lost = false;
      const auto change = hub_.state_.Next(index_, &lost);
      if (lost) {
        return FinishLocked(rpc::Error(absl::StatusCode::kOutOfRange, "WATCH_EXPIRED",
                                       "this watcher was too slow: watch again without a token"));
      }
      if (change == nullptr) break;
      index_ = change->index;
      revision_ = std::max(revision_, change->revision);
      if (!Fill(*change)) continue;
      return Send(/*token=*/true);
    }
    if (SendStep()) return;
    if (absl::Now() - last_sent_ >= kBookmarkInterval) {
      message_.mutable_bookmark();
      Send(/*token=*/true);
    }
  }

  // True when the change concerns this watcher: it matches, or did when it was last told of.
  bool Fill(const PublishedChange& change) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const bool single = !filter_->single_job().empty();
    if (single && change.name != filter_->single_job()) return false;
    if (change.job == nullptr) {
      if (seen_.erase(change.name) == 0) return false;
      message_.set_deleted(change.name);
    } else {
      const bool matches = filter_->Matches(*change.job);
      const bool seen = seen_.count(change.name) > 0;
      if (!matches && !(seen && filter_->MatchesParent(*change.job))) return false;
      if (matches) {
        seen_.insert(change.name);
      } else {
        seen_.erase(change.name);
      }
      *message_.mutable_job() = *change.job;
    }
    if (single) {
      if (change.job != nullptr) uid_ = change.job->uid();
      for (const v1::Event& event : change.events) *message_.add_events() = event;
    }
    return true;
  }

  bool SendStep() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (uid_.empty()) return false;
    if (steps_.empty() && hub_.metrics_.LastId() > step_id_) {
      const int64_t newest = hub_.metrics_.LastId();
      auto steps = hub_.metrics_.After(uid_, step_id_, kStepBatch);
      if (!steps.ok()) return false;
      steps_.assign(steps->begin(), steps->end());
      if (steps_.empty()) step_id_ = newest;  // other jobs' steps
    }
    if (steps_.empty()) return false;
    step_id_ = steps_.front().id;
    *message_.mutable_step() = std::move(steps_.front().sample);
    steps_.pop_front();
    Send(/*token=*/true);
    return true;
  }

  void Send(bool token) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (token) {
      message_.set_resume_token(
          MakeToken("watch", filter_->fingerprint(),
                    {hub_.state_.store_id(), absl::StrCat(revision_), absl::StrCat(step_id_)}));
    }
    last_sent_ = absl::Now();
    SendLocked(std::exchange(message_, {}));
  }

  WatchHub& hub_;
  const v1::WatchJobsRequest request_;
  std::optional<JobFilter> filter_ ABSL_GUARDED_BY(mutex_);
  std::string uid_ ABSL_GUARDED_BY(mutex_);  // of the single job
  std::deque<std::shared_ptr<const v1::Job>> snapshot_ ABSL_GUARDED_BY(mutex_);
  bool snapshot_open_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::string> seen_ ABSL_GUARDED_BY(mutex_);  // names told as matching
  std::deque<RecordedStep> steps_ ABSL_GUARDED_BY(mutex_);
  int64_t index_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t revision_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t step_id_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time last_sent_ ABSL_GUARDED_BY(mutex_) = absl::Now();
  v1::WatchJobsResponse message_ ABSL_GUARDED_BY(mutex_);
};

WatchHub::WatchHub(const PublishedState& state, MetricsStore& metrics)
    : state_(state), metrics_(metrics), watchers_(kTick) {}

WatchHub::Reactor* WatchHub::Watch(const v1::WatchJobsRequest& request) {
  return watchers_.Add(std::make_unique<Watcher>(*this, request));
}

}  // namespace switchyard::coordinator
