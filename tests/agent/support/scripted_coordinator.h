// A coordinator as far as an agent can see: real gRPC, and it says only what the test tells it to.
//
// Answers Hello by Welcome, Heartbeat by HeartbeatAck and LogChunk by LogAck by itself; keeps
// everything that was said. Thread-safe.
#pragma once

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/rpc/channel.h"
#include "switchyard/agent/v1/agent.grpc.pb.h"

namespace switchyard::agent {

class ScriptedCoordinator final : public v1::AgentService::Service {
 public:
  ScriptedCoordinator() { Start(); }
  ~ScriptedCoordinator() override { Stop(); }

  // Also after Stop: on the same port.
  void Start() {
    grpc::ServerBuilder builder;
    rpc::ConfigureServer(builder);
    builder.AddListeningPort("127.0.0.1:" + std::to_string(port_),
                             grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_.reset();
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  // Logs are acknowledged unless this is off; chunks up to this total are taken, then the stream is
  // cut.
  void AcknowledgeLogs(bool on) {
    absl::MutexLock lock(&mutex_);
    acknowledge_logs_ = on;
  }
  void CutAfterLogBytes(int64_t bytes) {
    absl::MutexLock lock(&mutex_);
    cut_after_log_bytes_ = bytes;
  }
  // Acknowledged terminal states are a command of their own: Send.
  void Send(const v1::ConnectResponse& message) {
    absl::MutexLock lock(&mutex_);
    ASSERT_TRUE(mutex_.AwaitWithTimeout(
        absl::Condition(
            +[](ScriptedCoordinator* c) { return c->stream_ != nullptr; }, this),
        absl::Seconds(20)));
    stream_->Write(message);
  }

  // Waits until `condition` holds for what was said so far; false after 20 s.
  bool WaitUntil(std::function<bool()> condition) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&condition), absl::Seconds(20));
  }
  // Waits for an AttemptStatus of the job's epoch in `state`; returns the newest one.
  v1::AttemptStatus WaitFor(const std::string& job, int64_t epoch, v1::AttemptState state) {
    const auto key = std::make_pair(job, epoch);
    EXPECT_TRUE(WaitUntil([&] {
      const auto it = statuses_.find(key);
      return it != statuses_.end() && it->second.state() == state;
    })) << "attempt "
        << job << "/" << epoch << " did not reach " << v1::AttemptState_Name(state);
    absl::MutexLock lock(&mutex_);
    return statuses_[key];
  }
  std::string WaitForLog(const std::string& job, int64_t epoch, int rank, const std::string& text) {
    const auto key = std::make_tuple(job, epoch, rank);
    EXPECT_TRUE(WaitUntil([&] { return logs_[key].find(text) != std::string::npos; }))
        << "no log line " << text;
    absl::MutexLock lock(&mutex_);
    return logs_[key];
  }
  // A hello is of the `count`th session.
  v1::Hello WaitForHello(size_t count) {
    EXPECT_TRUE(WaitUntil([&] { return hellos_.size() >= count; })) << "no session " << count;
    absl::MutexLock lock(&mutex_);
    return hellos_.empty() ? v1::Hello() : hellos_.back();
  }
  std::string log(const std::string& job, int64_t epoch, int rank) {
    absl::MutexLock lock(&mutex_);
    return logs_[{job, epoch, rank}];
  }
  std::vector<v1::ConnectRequest> said() {
    absl::MutexLock lock(&mutex_);
    return said_;
  }
  // Forgets statuses, so that WaitFor sees only new ones.
  void ForgetStatuses() {
    absl::MutexLock lock(&mutex_);
    statuses_.clear();
  }
  int log_gaps() {
    absl::MutexLock lock(&mutex_);
    return log_gaps_;
  }
  int64_t log_bytes_received() {
    absl::MutexLock lock(&mutex_);
    return log_bytes_received_;
  }

  grpc::Status Connect(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::ConnectResponse, v1::ConnectRequest>* stream) override {
    v1::ConnectRequest message;
    while (stream->Read(&message)) {
      absl::MutexLock lock(&mutex_);
      if (!Take(message, stream))
        return grpc::Status(grpc::StatusCode::UNAVAILABLE, "cut by the test");
    }
    absl::MutexLock lock(&mutex_);
    if (stream_ == stream) stream_ = nullptr;
    (void)context;
    return grpc::Status::OK;
  }

 private:
  using Stream = grpc::ServerReaderWriter<v1::ConnectResponse, v1::ConnectRequest>;

  bool Take(const v1::ConnectRequest& message, Stream* stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    said_.push_back(message);
    v1::ConnectResponse answer;
    if (message.has_hello()) {
      hellos_.push_back(message.hello());
      auto* welcome = answer.mutable_welcome();
      welcome->set_protocol(1);
      welcome->set_heartbeat_interval_ms(200);
      welcome->set_lease_ms(3000);
      welcome->set_execution_grant_ms(600000);
      welcome->set_store_id("store");
      stream->Write(answer);
      stream_ = stream;
    } else if (message.has_heartbeat()) {
      answer.mutable_heartbeat_ack()->set_sequence(message.heartbeat().sequence());
      stream->Write(answer);
    } else if (message.has_attempt_status()) {
      statuses_[{message.attempt_status().job_uid(), message.attempt_status().epoch()}] =
          message.attempt_status();
    } else if (message.has_log_chunk()) {
      return TakeLog(message.log_chunk(), stream);
    }
    return true;
  }

  bool TakeLog(const v1::LogChunk& chunk, Stream* stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    std::string& log = logs_[{chunk.job_uid(), chunk.epoch(), chunk.rank()}];
    const auto offset = static_cast<size_t>(chunk.offset());
    log_bytes_received_ += static_cast<int64_t>(chunk.text().size());
    if (offset > log.size()) ++log_gaps_;
    log.resize(std::max(log.size(), offset + chunk.text().size()));
    log.replace(offset, chunk.text().size(), chunk.text());
    if (cut_after_log_bytes_ >= 0 && static_cast<int64_t>(log.size()) > cut_after_log_bytes_) {
      cut_after_log_bytes_ = -1;
      log.resize(log.size() - chunk.text().size());  // as if this chunk had never come
      stream_ = nullptr;
      return false;
    }
    if (!acknowledge_logs_) return true;
    v1::ConnectResponse answer;
    auto* ack = answer.mutable_log_ack();
    ack->set_job_uid(chunk.job_uid());
    ack->set_epoch(chunk.epoch());
    ack->set_rank(chunk.rank());
    ack->set_offset(static_cast<int64_t>(log.size()));
    stream->Write(answer);
    return true;
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  absl::Mutex mutex_;
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool acknowledge_logs_ ABSL_GUARDED_BY(mutex_) = true;
  int64_t cut_after_log_bytes_ ABSL_GUARDED_BY(mutex_) = -1;
  int log_gaps_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t log_bytes_received_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<v1::ConnectRequest> said_ ABSL_GUARDED_BY(mutex_);
  std::vector<v1::Hello> hellos_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, int64_t>, v1::AttemptStatus> statuses_;
  std::map<std::tuple<std::string, int64_t, int>, std::string> logs_;
};

}  // namespace switchyard::agent
