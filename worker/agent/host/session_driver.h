// Keeps a session with the coordinator: dials, dials again, and sends what waits.
//
// Lifecycle and reports go before logs; logs are read from disk only when the stream takes them.
// Runs on the loop's thread.
#pragma once

#include <grpcpp/security/credentials.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/clock.h"
#include "worker/agent/host/inbox.h"
#include "worker/agent/log/log_spool.h"
#include "worker/agent/session/backoff.h"
#include "worker/agent/session/coordinator_stream.h"
#include "worker/agent/session/outbox.h"

namespace switchyard::agent {

class SessionDriver {
 public:
  using Time = Clock::SteadyTime;
  struct Callbacks {
    std::function<void()> on_opened;
    std::function<void(v1::ConnectResponse)> on_message;
    std::function<void()> on_closed;
  };

  // Asked before every dial; another object: the agent has another certificate to show.
  using Credentials = std::function<std::shared_ptr<grpc::ChannelCredentials>()>;

  // `advice` is logged when nothing answers at `target`. `inbox` and `spool` must outlive it.
  SessionDriver(std::string target, Credentials credentials, std::string advice, Inbox& inbox,
                LogSpool& spool, Callbacks callbacks);
  ~SessionDriver();

  void Send(v1::ConnectRequest message) { outbox_.Push(std::move(message)); }
  void Close(const std::string& reason);
  // Dials when it is time and writes when there is something; `welcomed`: the session was accepted.
  void Turn(Time now, bool welcomed);
  // When Turn has something to do by itself.
  std::optional<Time> NextDial() const;
  // Everything that waited was handed to the stream, or there is none.
  bool Drained() const;
  int64_t dropped_reports() const { return outbox_.dropped_reports(); }

 private:
  void Dial();
  void OnClosed(const grpc::Status& status);

  std::string target_;
  const std::string advice_;
  Inbox& inbox_;
  LogSpool& spool_;
  Callbacks callbacks_;
  Credentials credentials_;
  std::shared_ptr<grpc::ChannelCredentials> shown_;  // of channel_
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<CoordinatorStream> stream_;
  Outbox outbox_;
  Backoff backoff_;
  Time next_dial_{};
  Time last_complaint_{};
  int64_t generation_ = 0;
  bool writing_ = false;
};

}  // namespace switchyard::agent
