// AgentService over gRPC: sessions of agents, and the core's way to talk to them.
//
// Log chunks go straight to the log store, on gRPC's threads; everything else goes to the writer
// thread.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>

#include "absl/synchronization/mutex.h"
#include "coordinator/history/log_store.h"
#include "coordinator/service/core_loop.h"
#include "coordinator/service/published_state.h"
#include "switchyard/agent/v1/agent.grpc.pb.h"

namespace switchyard::coordinator {

class AgentServiceImpl final : public agent::v1::AgentService::CallbackService,
                               public AgentTransport {
 public:
  // The node that a peer proved to be, empty where nobody is asked, or why it is not let in.
  using Admit =
      std::function<absl::StatusOr<std::optional<std::string>>(const grpc::CallbackServerContext*)>;

  AgentServiceImpl(const PublishedState& state, LogStore& logs, Admit admit)
      : state_(state), logs_(logs), admit_(std::move(admit)) {}

  // The loop is made after the core, which needs this object; set before the server starts.
  void SetLoop(CoreLoop* loop) { loop_ = loop; }

  grpc::ServerBidiReactor<agent::v1::ConnectRequest, agent::v1::ConnectResponse>* Connect(
      grpc::CallbackServerContext* context) override;

  void Send(uint64_t session, const agent::v1::ConnectResponse& message) override;
  void Close(uint64_t session) override;
  // Ends all sessions; agents dial again. New ones end at once.
  void CloseAll();

 private:
  class Session;

  void WithSession(uint64_t id, const std::function<void(Session&)>& use);

  const PublishedState& state_;
  LogStore& logs_;
  const Admit admit_;
  CoreLoop* loop_ = nullptr;
  absl::Mutex mutex_;
  uint64_t next_session_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<uint64_t, Session*> sessions_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard::coordinator
