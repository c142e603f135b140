// The life of server streams that one thread feeds: begun under a lock of their own, pumped when
// there may be news, ended together when the hub closes, gone when gRPC is done with them.
//
// Knows nothing of what they say: a stream fills its messages itself, one write at a time. Locks:
// the hub's before a stream's, never the other way round.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc/status.h"

namespace switchyard::coordinator {

template <typename Response>
class StreamHub {
 public:
  using Reactor = grpc::ServerWriteReactor<Response>;

  class Stream : public Reactor {
   public:
    explicit Stream(StreamHub& hub) : hub_(hub) {}
    void OnWriteDone(bool ok) final {
      absl::MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok) return FinishLocked(absl::CancelledError("the reader is gone"));
      if (pending_end_) return FinishLocked(*pending_end_);
      PumpLocked();
    }
    void OnCancel() final { End(absl::CancelledError("cancelled")); }
    void OnDone() final {
      {
        absl::MutexLock lock(&hub_.mutex_);
        hub_.streams_.erase(this);
      }
      delete this;
    }

   protected:
    // Once, before anything else. An error ends the stream.
    virtual absl::Status StartLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;
    // Says what there is to say next: one SendLocked, a FinishLocked, or nothing yet.
    virtual void NextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) = 0;

    void SendLocked(Response message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      writing_ = true;
      outgoing_ = std::move(message);
      this->StartWrite(&outgoing_);
    }
    // Ends the stream, after the message that is being written.
    void FinishLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (finished_) return;
      if (writing_) {
        pending_end_ = status;
        return;
      }
      finished_ = true;
      this->Finish(rpc::ToGrpcStatus(status));
    }
    absl::Mutex mutex_;

   private:
    friend class StreamHub;
    void Begin() {
      // In one go: the hub's thread may pump this stream already, and must not see it half set up.
      absl::MutexLock lock(&mutex_);
      const absl::Status status = StartLocked();
      if (!status.ok()) return FinishLocked(status);
      started_ = true;
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
    void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (started_ && !writing_ && !finished_) NextLocked();
    }

    StreamHub& hub_;
    bool started_ ABSL_GUARDED_BY(mutex_) = false;
    bool writing_ ABSL_GUARDED_BY(mutex_) = false;
    bool finished_ ABSL_GUARDED_BY(mutex_) = false;
    std::optional<absl::Status> pending_end_ ABSL_GUARDED_BY(mutex_);
    Response outgoing_;  // owned by gRPC while writing
  };

  // Pumps all streams after each Notify, and every `interval` in any case.
  explicit StreamHub(absl::Duration interval) : interval_(interval), thread_([this] { Run(); }) {}
  ~StreamHub() {
    Close();
    thread_.join();
  }

  // A new stream; it owns itself and ends with its call.
  Reactor* Add(std::unique_ptr<Stream> owned) {
    Stream* stream = owned.release();
    bool closed;
    {
      absl::MutexLock lock(&mutex_);
      closed = closed_;
      streams_.insert(stream);
    }
    if (closed) {
      stream->End(ShuttingDown());
    } else {
      stream->Begin();
    }
    return stream;
  }
  // Any thread; returns at once.
  void Notify() {
    absl::MutexLock lock(&news_mutex_);
    news_ = true;
  }
  // Ends all streams with UNAVAILABLE. New ones end at once.
  void Close() {
    {
      absl::MutexLock lock(&news_mutex_);
      stopping_ = true;
    }
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    for (Stream* stream : streams_) stream->End(ShuttingDown());
  }

 private:
  static absl::Status ShuttingDown() {
    return absl::UnavailableError("the coordinator is shutting down");
  }
  void Run() {
    while (true) {
      {
        absl::MutexLock lock(&news_mutex_);
        const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(news_mutex_) {
          return news_ || stopping_;
        };
        news_mutex_.AwaitWithTimeout(absl::Condition(&ready), interval_);
        if (stopping_) return;
        news_ = false;
      }
      // OnDone takes this mutex before it deletes a stream, so none disappears here.
      absl::MutexLock lock(&mutex_);
      for (Stream* stream : streams_) stream->Pump();
    }
  }

  const absl::Duration interval_;
  absl::Mutex mutex_;
  std::set<Stream*> streams_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // Apart from the above, so that Notify never waits for a stream.
  absl::Mutex news_mutex_;
  bool news_ ABSL_GUARDED_BY(news_mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(news_mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard::coordinator
