#include "worker/agent/session/coordinator_stream.h"

#include <grpcpp/channel.h>

namespace switchyard::agent {

// Holds itself until OnDone. A hold on the call keeps OnDone away while Write may still be called.
class CoordinatorStream::Reactor
    : public grpc::ClientBidiReactor<v1::ConnectRequest, v1::ConnectResponse> {
 public:
  explicit Reactor(Callbacks callbacks) : callbacks_(std::move(callbacks)) {}

  void Start(v1::AgentService::Stub* stub, std::shared_ptr<Reactor> self) {
    self_ = std::move(self);
    stub->async()->Connect(&context_, this);
    AddHold();
    StartRead(&incoming_);
    StartCall();
  }

  void Write(const v1::ConnectRequest& message) {
    absl::MutexLock lock(&mutex_);
    if (released_) return;
    outgoing_ = message;
    StartWrite(&outgoing_);
  }

  void Cancel() { context_.TryCancel(); }

  void WaitDone() {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&done_));
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      Release();
      return;
    }
    callbacks_.on_message(std::move(incoming_));
    incoming_.Clear();
    StartRead(&incoming_);
  }

  void OnWriteDone(bool ok) override {
    if (ok) callbacks_.on_written();
  }

  void OnDone(const grpc::Status& status) override {
    callbacks_.on_closed(status);
    const std::shared_ptr<Reactor> self =
        std::move(self_);  // outlives the lock, even if it is the last one
    absl::MutexLock lock(&mutex_);
    done_ = true;
  }

 private:
  void Release() {
    {
      absl::MutexLock lock(&mutex_);
      if (released_) return;
      released_ = true;
    }
    RemoveHold();
  }

  Callbacks callbacks_;
  grpc::ClientContext context_;
  v1::ConnectResponse incoming_;
  v1::ConnectRequest outgoing_;
  absl::Mutex mutex_;
  bool released_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<Reactor> self_;
};

CoordinatorStream::CoordinatorStream(std::shared_ptr<grpc::Channel> channel, Callbacks callbacks)
    : stub_(v1::AgentService::NewStub(channel)),
      reactor_(std::make_shared<Reactor>(std::move(callbacks))) {
  reactor_->Start(stub_.get(), reactor_);
}

CoordinatorStream::~CoordinatorStream() {
  reactor_->Cancel();
  reactor_->WaitDone();
}

void CoordinatorStream::Write(const v1::ConnectRequest& message) { reactor_->Write(message); }

void CoordinatorStream::Cancel() { reactor_->Cancel(); }

}  // namespace switchyard::agent
