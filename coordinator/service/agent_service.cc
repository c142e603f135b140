#include "coordinator/service/agent_service.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/rpc/status.h"
#include "common/rpc/violations.h"
#include "common/utf8.h"

namespace switchyard::coordinator {
namespace {

using agent::v1::ConnectRequest;
using agent::v1::ConnectResponse;

// Messages of one session that the writer thread has not looked at yet; above it reading pauses.
constexpr int kMaxUnhandled = 64;
// Messages to an agent that does not read; above it the session ends, and a new one starts from the
// state.
constexpr size_t kMaxUnsent = 10000;
constexpr size_t kMaxLogChunk = 128 << 10;

}  // namespace

class AgentServiceImpl::Session final
    : public grpc::ServerBidiReactor<ConnectRequest, ConnectResponse> {
 public:
  // `proven` is the node that the peer may speak for, or empty for any.
  Session(AgentServiceImpl& service, uint64_t id, std::optional<std::string> proven)
      : service_(service), id_(id), proven_(std::move(proven)) {}

  void Begin() { StartRead(&request_); }

  void Send(const ConnectResponse& message) {
    absl::MutexLock lock(&mutex_);
    if (finished_ || ending_) return;
    if (unsent_.size() >= kMaxUnsent) {
      EndLocked(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the agent does not read"));
      return;
    }
    unsent_.push_back(message);
    WriteLocked();
  }
  void End(const grpc::Status& status) {
    absl::MutexLock lock(&mutex_);
    EndLocked(status);
  }
  // The writer thread is done with one message.
  void Handled() {
    absl::MutexLock lock(&mutex_);
    --unhandled_;
    if (read_paused_ && !finished_ && !ending_) {
      read_paused_ = false;
      StartRead(&request_);
    }
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    if (SpeaksForAnother(request_)) {
      log::Warning("agent.foreign_message",
                   {{"node", node_}, {"message", static_cast<int>(request_.message_case())}});
      if (request_.has_log_chunk()) AckLog(request_.log_chunk(), EndOf(request_.log_chunk()));
    } else if (request_.has_log_chunk()) {
      StoreLog(request_.log_chunk());
    } else if (!Forward()) {
      return End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the coordinator is shutting down"));
    }
    absl::MutexLock lock(&mutex_);
    if (finished_ || ending_) return;
    if (unhandled_ >= kMaxUnhandled) {
      read_paused_ = true;
    } else {
      StartRead(&request_);
    }
  }
  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    if (!ok) return EndLocked(grpc::Status(grpc::StatusCode::CANCELLED, "the agent is gone"));
    if (ending_) return EndLocked(*ending_);
    WriteLocked();
  }
  void OnCancel() override { End(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled")); }
  void OnDone() override {
    {
      absl::MutexLock lock(&service_.mutex_);
      service_.sessions_.erase(id_);
    }
    const auto change = [id = id_, node = node_](Core& core) { core.OnDisconnected(id, node); };
    if (!node_.empty()) service_.loop_->Post(change);
    delete this;
  }

 private:
  // False when the writer thread has ended.
  bool Forward() {
    AgentServiceImpl& service = service_;
    const uint64_t id = id_;
    const auto message = std::make_shared<ConnectRequest>(std::move(request_));
    request_.Clear();
    {
      absl::MutexLock lock(&mutex_);
      ++unhandled_;
    }
    if (node_.empty()) {
      if (!message->has_hello()) {
        End(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "the first message must be Hello"));
        return true;
      }
      // An agent of nodes lent for an attempt proves only that it is one of ours; the core knows
      // the names that the attempt's agents have.
      const bool lent = !message->hello().allocation().empty();
      if (proven_ && !lent && *proven_ != message->hello().node()) {
        End(rpc::ToGrpcStatus(
            rpc::Error(absl::StatusCode::kPermissionDenied, "NOT_YOUR_NODE",
                       absl::StrCat("the certificate is of node \"", *proven_, "\", not of \"",
                                    Utf8Prefix(message->hello().node(), 63),
                                    "\"; start the agent with --node ", *proven_,
                                    ", or issue a certificate for its node"))));
        return true;
      }
      node_ = message->hello().node();
      return service.loop_->Post([&service, id, message](Core& core) {
        const absl::Status status = core.OnHello(id, message->hello());
        if (!status.ok()) {
          log::Warning("agent.refused", {{"node", message->hello().node()},
                                         {"error", std::string(status.message())}});
          service.WithSession(id,
                              [&](Session& session) { session.End(rpc::ToGrpcStatus(status)); });
        }
        service.WithSession(id, [](Session& session) { session.Handled(); });
      });
    }
    return service.loop_->Post([&service, id, node = node_, message](Core& core) {
      core.OnMessage(id, node, *message);
      service.WithSession(id, [](Session& session) { session.Handled(); });
    });
  }

  // Of a rank or attempt that was never placed on this node. What an agent says of its own
  // attempts in AttemptStatus is kept by node, and so can only be of itself.
  bool SpeaksForAnother(const ConnectRequest& message) const {
    const auto foreign = [&](const std::string& uid, int64_t epoch, int rank) {
      return service_.state_.HasUid(uid) && !service_.state_.RanOn(node_, uid, epoch, rank);
    };
    if (message.has_rank_report()) {
      const auto& report = message.rank_report();
      return foreign(report.job_uid(), report.epoch(), std::max(0, report.rank()));
    }
    if (message.has_log_chunk()) {
      const auto& chunk = message.log_chunk();
      return foreign(chunk.job_uid(), chunk.epoch(), std::max(-1, chunk.rank()));
    }
    if (message.has_checkpoint_published()) {
      const auto& published = message.checkpoint_published();
      return foreign(published.job_uid(), published.epoch(), -1);
    }
    return false;
  }

  static int64_t EndOf(const agent::v1::LogChunk& chunk) {
    return LogStore::EndOf(chunk.offset(), chunk.text());
  }

  void StoreLog(const agent::v1::LogChunk& chunk) {
    int64_t stored = EndOf(chunk);
    // Chunks of jobs that are gone are acknowledged and dropped, so that the agent can forget them.
    if (service_.state_.HasUid(chunk.job_uid()) && chunk.text().size() <= kMaxLogChunk &&
        chunk.offset() >= 0 && chunk.epoch() > 0 && chunk.rank() >= -1) {
      const auto offset = service_.logs_.Append(chunk.job_uid(), chunk.epoch(), chunk.rank(),
                                                chunk.offset(), chunk.text());
      if (!offset.ok()) {
        log::Warning("logs.not_stored", {{"job_uid", chunk.job_uid()},
                                         {"error", std::string(offset.status().message())}});
        return;  // no acknowledgement: the agent keeps it
      }
      stored = *offset;
    }
    AckLog(chunk, stored);
  }

  void AckLog(const agent::v1::LogChunk& chunk, int64_t stored) {
    ConnectResponse response;
    auto& ack = *response.mutable_log_ack();
    ack.set_job_uid(chunk.job_uid());
    ack.set_epoch(chunk.epoch());
    ack.set_rank(chunk.rank());
    ack.set_offset(stored);
    Send(response);
  }

  void WriteLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_ || unsent_.empty()) return;
    writing_ = true;
    response_ = std::move(unsent_.front());
    unsent_.pop_front();
    StartWrite(&response_);
  }

  void EndLocked(const grpc::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (finished_) return;
    if (writing_) {
      if (!ending_) ending_ = status;
      return;
    }
    finished_ = true;
    Finish(ending_ ? *ending_ : status);
  }

  AgentServiceImpl& service_;
  const uint64_t id_;
  const std::optional<std::string> proven_;
  std::string node_;        // read by gRPC's threads, one at a time
  ConnectRequest request_;  // owned by gRPC while reading
  absl::Mutex mutex_;
  std::deque<ConnectResponse> unsent_ ABSL_GUARDED_BY(mutex_);
  ConnectResponse response_;  // owned by gRPC while writing
  int unhandled_ ABSL_GUARDED_BY(mutex_) = 0;
  bool read_paused_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> ending_ ABSL_GUARDED_BY(mutex_);
};

void AgentServiceImpl::WithSession(uint64_t id, const std::function<void(Session&)>& use) {
  // OnDone takes this mutex before it deletes a session, so it stays while it is used.
  absl::MutexLock lock(&mutex_);
  const auto it = sessions_.find(id);
  if (it != sessions_.end()) use(*it->second);
}

grpc::ServerBidiReactor<ConnectRequest, ConnectResponse>* AgentServiceImpl::Connect(
    grpc::CallbackServerContext* context) {
  auto proven = admit_(context);
  Session* session;
  bool closed;
  {
    absl::MutexLock lock(&mutex_);
    const uint64_t id = next_session_++;
    session = new Session(*this, id, proven.value_or(std::nullopt));
    sessions_[id] = session;
    closed = closed_;
  }
  if (!proven.ok()) {
    session->End(rpc::ToGrpcStatus(proven.status()));
  } else if (closed) {
    session->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the coordinator is shutting down"));
  } else {
    session->Begin();
  }
  return session;
}

void AgentServiceImpl::Send(uint64_t session, const ConnectResponse& message) {
  WithSession(session, [&](Session& open) { open.Send(message); });
}

void AgentServiceImpl::Close(uint64_t session) {
  WithSession(session, [](Session& open) {
    open.End(grpc::Status(grpc::StatusCode::ABORTED, "the session is over: connect again"));
  });
}

void AgentServiceImpl::CloseAll() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  for (const auto& [id, session] : sessions_) {
    session->End(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the coordinator is shutting down"));
  }
}

}  // namespace switchyard::coordinator
