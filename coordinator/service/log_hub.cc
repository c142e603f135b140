#include "coordinator/service/log_hub.h"

#include <limits>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/violations.h"
#include "common/utf8.h"

namespace switchyard::coordinator {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(250);
constexpr int kPreparation = -1;

}  // namespace

class LogHub::Reader final : public StreamHub<v1::StreamLogsResponse>::Stream {
 public:
  Reader(LogHub& hub, const v1::StreamLogsRequest& request)
      : Stream(hub.readers_), hub_(hub), request_(request) {}

 private:
  absl::Status StartLocked() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto job = hub_.state_.FindJob(request_.name());
    if (job == nullptr) return rpc::NotFound("switchyard.v1.Job", request_.name());
    if (request_.tail_lines() < 0 || request_.epoch() < 0) {
      return rpc::InvalidArgument(
          {{request_.epoch() < 0 ? "epoch" : "tail_lines", "must not be negative"}});
    }
    if (request_.epoch() > job->epoch()) {
      return rpc::InvalidArgument(
          {{"epoch",
            absl::StrCat("is ", request_.epoch(), "; the job is at attempt ", job->epoch())}});
    }
    uid_ = job->uid();
    epoch_ = request_.epoch() == 0 ? job->epoch() : request_.epoch();
    return CheckRankLocked(*job);
  }

  absl::Status CheckRankLocked(const v1::Job& job) const ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    if (!request_.has_rank()) return absl::OkStatus();
    // Of an attempt that is still to come or not kept any more nobody knows how many it has.
    int ranks = std::numeric_limits<int>::max();
    for (const v1::Attempt& attempt : job.attempts()) {
      if (attempt.epoch() == epoch_ && !attempt.placements().empty())
        ranks = attempt.placements_size();
    }
    if (request_.rank() >= kPreparation && request_.rank() < ranks) return absl::OkStatus();
    const std::string has = ranks == std::numeric_limits<int>::max()
                                ? "ranks are counted from 0"
                                : absl::StrCat("attempt ", epoch_, " has ranks 0 to ", ranks - 1);
    return rpc::InvalidArgument({{"rank", absl::StrCat("is ", request_.rank(), "; ", has,
                                                       ", data preparation is ", kPreparation)}});
  }

  void NextLocked() override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
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
      v1::StreamLogsResponse message;
      message.set_epoch(epoch_);
      message.set_rank(rank);
      message.set_node(gone ? "" : NodeOf(*job, rank));
      message.set_text(ToUtf8(slice->text));
      message.set_offset(slice->offset);
      if (slice->gap_before) message.set_gap_reason("NEVER_CAPTURED");
      return SendLocked(std::move(message));
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

  LogHub& hub_;
  const v1::StreamLogsRequest request_;
  std::string uid_ ABSL_GUARDED_BY(mutex_);
  int64_t epoch_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<int, int64_t> offsets_ ABSL_GUARDED_BY(mutex_);
  absl::Time over_since_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

LogHub::LogHub(const PublishedState& state, const LogStore& logs)
    : state_(state), logs_(logs), readers_(kPoll) {}

LogHub::Reactor* LogHub::Stream(const v1::StreamLogsRequest& request) {
  return readers_.Add(std::make_unique<Reader>(*this, request));
}

}  // namespace switchyard::coordinator
