#include "coordinator/service/log_hub.h"

#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/status.h"
#include "common/rpc/violations.h"
#include "common/utf8.h"

namespace switchyard::coordinator {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(250);

}  // namespace

class LogHub::Reader final : public LogHub::Reactor {
 public:
  Reader(LogHub& hub, const v1::StreamLogsRequest& request) : hub_(hub), request_(request) {}

  void Begin() {
    absl::MutexLock lock(&mutex_);
    const auto job = hub_.state_.FindJob(request_.name());
    if (job == nullptr) return FinishLocked(rpc::NotFound("switchyard.v1.Job", request_.name()));
    if (request_.tail_lines() < 0 || request_.epoch() < 0) {
      return FinishLocked(rpc::InvalidArgument(
          {{request_.epoch() < 0 ? "epoch" : "tail_lines", "must not be negative"}}));
    }
    if (request_.epoch() > job->epoch()) {
      return FinishLocked(rpc::InvalidArgument(
          {{"epoch",
            absl::StrCat("is ", request_.epoch(), "; the job is at attempt ", job->epoch())}}));
    }
    uid_ = job->uid();
    epoch_ = request_.epoch() == 0 ? job->epoch() : request_.epoch();
    PumpLocked();
  }
  void Pump() {
    absl::MutexLock lock(&mutex_);
    PumpLocked();
  }
  void End(const absl::Status& status) {
    absl::MutexLock lock(&mutex_);
    FinishLocked(status);
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) return FinishLocked(absl::CancelledError("the reader is gone"));
    if (pending_end_) return FinishLocked(*pending_end_);
    PumpLocked();
  }
  void OnCancel() override { End(absl::CancelledError("cancelled")); }
  void OnDone() override {
    {
      absl::MutexLock lock(&hub_.mutex_);
      hub_.readers_.erase(this);
    }
    delete this;
  }

 private:
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_ || uid_.empty()) return;
    // Looked at before the files: what a job wrote before it ended is in them then.
    const auto job = hub_.state_.FindJob(request_.name());
    const bool gone = job == nullptr || job->uid() != uid_;
    const bool over = gone || job->terminal() || job->epoch() != epoch_;
    for (const int rank : hub_.logs_.Ranks(uid_, epoch_)) {
      if (request_.has_rank() && request_.rank() != rank) continue;
      if (offsets_.count(rank) == 0) {
        offsets_[rank] = request_.tail_lines() == 0
                             ? 0
                             : hub_.logs_.TailOffset(uid_, epoch_, rank, request_.tail_lines());
      }
      const auto slice =
          hub_.logs_.Read(uid_, epoch_, rank, offsets_[rank], over || !request_.follow());
      if (!slice.ok()) return FinishLocked(slice.status());
      if (slice->text.empty()) continue;
      offsets_[rank] = slice->offset + static_cast<int64_t>(slice->text.size());
      message_.Clear();
      message_.set_epoch(epoch_);
      message_.set_rank(rank);
      message_.set_node(gone ? "" : NodeOf(*job, rank));
      message_.set_text(ToUtf8(slice->text));
      message_.set_offset(slice->offset);
      if (slice->gap_before) message_.set_gap_reason("NEVER_CAPTURED");
      writing_ = true;
      StartWrite(&message_);
      return;
    }
    if (!request_.follow()) return FinishLocked(absl::OkStatus());
    if (gone || (over && request_.epoch() != 0) ||
        (!gone && job->terminal() && job->epoch() == epoch_)) {
      // Agents flush their spool before an attempt's end is known; a moment more for what is on its
      // way.
      if (over_since_ == absl::InfinitePast()) over_since_ = absl::Now();
      if (absl::Now() - over_since_ > absl::Seconds(1)) FinishLocked(absl::OkStatus());
    } else if (over) {
      epoch_ = job->epoch();  // the next attempt
      offsets_.clear();
    }
  }

  std::string NodeOf(const v1::Job& job, int rank) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    for (const v1::Attempt& attempt : job.attempts()) {
      if (attempt.epoch() != epoch_) continue;
      for (const v1::RankPlacement& placement : attempt.placements()) {
        if (placement.rank() == std::max(rank, 0)) return placement.node();
      }
    }
    return "";
  }

  void FinishLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    if (writing_) {
      pending_end_ = status;
      return;
    }
    finished_ = true;
    Finish(rpc::ToGrpcStatus(status));
  }

  LogHub& hub_;
  const v1::StreamLogsRequest request_;
  absl::Mutex mutex_;
  std::string uid_ ABSL_GUARDED_BY(mutex_);
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int, int64_t> offsets_ ABSL_GUARDED_BY(mutex_);
  absl::Time over_since_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<absl::Status> pending_end_ ABSL_GUARDED_BY(mutex_);
  v1::StreamLogsResponse message_;  // owned by gRPC while writing
};

LogHub::LogHub(const PublishedState& state, const LogStore& logs)
    : state_(state), logs_(logs), thread_([this] { Run(); }) {}

LogHub::~LogHub() {
  Close();
  thread_.join();
}

LogHub::Reactor* LogHub::Stream(const v1::StreamLogsRequest& request) {
  auto* reader = new Reader(*this, request);
  bool closed;
  {
    absl::MutexLock lock(&mutex_);
    closed = closed_;
    readers_.insert(reader);
  }
  if (closed) {
    reader->End(absl::UnavailableError("the coordinator is shutting down"));
  } else {
    reader->Begin();
  }
  return reader;
}

void LogHub::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (Reader* reader : readers_)
    reader->End(absl::UnavailableError("the coordinator is shutting down"));
}

void LogHub::Run() {
  absl::MutexLock lock(&mutex_);
  while (!closed_) {
    mutex_.AwaitWithTimeout(absl::Condition(&closed_), kPoll);
    // OnDone takes this mutex before it deletes a reader, so none disappears here.
    for (Reader* reader : readers_) reader->Pump();
  }
}

}  // namespace switchyard::coordinator
