// One gRPC stream to the coordinator.
//
// A new object per connection. Callbacks run on gRPC's threads and only post. After on_closed
// nothing more is called and Write does nothing.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "switchyard/agent/v1/agent.grpc.pb.h"

namespace switchyard::agent {

class CoordinatorStream {
 public:
  struct Callbacks {
    std::function<void(v1::ConnectResponse)> on_message;
    std::function<void()> on_written;  // the message of Write is handed over; next one may come
    std::function<void(const grpc::Status&)> on_closed;
  };

  // Starts the call at once; a peer that is not there shows as on_closed.
  CoordinatorStream(std::shared_ptr<grpc::Channel> channel, Callbacks callbacks);
  // Cancels the call and waits until gRPC is done with it.
  ~CoordinatorStream();

  // One at a time: only before the first message or after on_written.
  void Write(const v1::ConnectRequest& message);
  // on_closed follows.
  void Cancel();

 private:
  class Reactor;
  std::unique_ptr<v1::AgentService::Stub> stub_;
  std::shared_ptr<Reactor> reactor_;
};

}  // namespace switchyard::agent
