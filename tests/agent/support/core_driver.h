// Drives an AgentCore by a hand-turned clock and answers for the machine: processes start, say
// lines and end when the test says so.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "worker/agent/core/agent_core.h"

namespace switchyard::agent {

class CoreDriver {
 public:
  explicit CoreDriver(int slots = 2, AgentCore::Recovered recovered = {})
      : core_(Options(slots), std::move(recovered), now_) {}

  static AgentCore::Options Options(int slots) {
    AgentCore::Options options;
    options.node = "node-a";
    options.incarnation = "first";
    options.boot_id = "boot";
    options.version = "test";
    for (int i = 0; i < slots; ++i) {
      auto* slot = options.inventory.add_slots();
      slot->set_index(i);
      slot->set_device("cpu");
    }
    return options;
  }

  // ---- inputs ----
  Outputs Step(Input input) {
    Outputs out = core_.Step(input, now_, wall_);
    all_.insert(all_.end(), out.begin(), out.end());
    return out;
  }
  Outputs Advance(std::chrono::milliseconds time) {
    now_ += time;
    return Step(Tick{});
  }
  Outputs Receive(v1::ConnectResponse message) { return Step(FromCoordinator{std::move(message)}); }
  void Connect(const std::string& store_id = "store") {
    Step(StreamOpened{});
    v1::ConnectResponse message;
    message.mutable_welcome()->set_protocol(kNewestProtocol);
    message.mutable_welcome()->set_store_id(store_id);
    Receive(message);
  }
  Outputs Start(const std::string& job, int64_t epoch, std::vector<int> slots = {0, 1}) {
    v1::ConnectResponse message;
    auto* start = message.mutable_start_ranks();
    start->set_job_uid(job);
    start->set_epoch(epoch);
    start->set_job("projects/default/jobs/" + job);
    start->set_trainer_config_json("{}");
    for (size_t i = 0; i < slots.size(); ++i) {
      auto* rank = start->add_ranks();
      rank->set_rank(static_cast<int>(i));
      rank->set_slot(slots[i]);
    }
    return Receive(message);
  }
  Outputs Stop(const std::string& job, int64_t epoch) {
    v1::ConnectResponse message;
    message.mutable_stop_attempt()->set_job_uid(job);
    message.mutable_stop_attempt()->set_epoch(epoch);
    message.mutable_stop_attempt()->set_reason("test");
    return Receive(message);
  }
  Outputs Prepare(const std::string& job, int64_t epoch) {
    v1::ConnectResponse message;
    message.mutable_prepare_data()->set_job_uid(job);
    message.mutable_prepare_data()->set_epoch(epoch);
    return Receive(message);
  }
  Outputs Ack(const std::string& job, int64_t epoch) {
    v1::ConnectResponse message;
    message.mutable_attempt_ack()->set_job_uid(job);
    message.mutable_attempt_ack()->set_epoch(epoch);
    return Receive(message);
  }
  // Both ranks of a fresh attempt run.
  void Run(const std::string& job, int64_t epoch, std::vector<int> slots = {0, 1}) {
    Start(job, epoch, slots);
    for (size_t i = 0; i < slots.size(); ++i)
      Step(ProcessStarted{Rank(job, epoch, static_cast<int>(i)), 100 + (int)i});
  }
  static ProcessKey Rank(const std::string& job, int64_t epoch, int rank) {
    return {{job, epoch}, rank};
  }
  Outputs Say(const std::string& job, int64_t epoch, int rank, trainer::v1::TrainerLine line) {
    return Step(TrainerSaid{Rank(job, epoch, rank), std::move(line)});
  }
  Outputs SayReady(const std::string& job, int64_t epoch, int rank) {
    trainer::v1::TrainerLine line;
    line.mutable_ready()->set_rank(rank);
    return Say(job, epoch, rank, line);
  }
  Outputs SayExit(const std::string& job, int64_t epoch, int rank, const std::string& code) {
    trainer::v1::TrainerLine line;
    line.mutable_exit()->set_code(code);
    line.mutable_exit()->set_message(code + " it is");
    return Say(job, epoch, rank, line);
  }
  Outputs SayData(const std::string& job, int64_t epoch, const v1::DataStatus& data) {
    PreparationSaid said;
    said.key.job_uid = job;
    said.key.epoch = epoch;
    said.data = data;
    return Step(std::move(said));
  }
  Outputs Exit(const std::string& job, int64_t epoch, int rank, int code, int signal = 0) {
    return Step(ProcessExited{Rank(job, epoch, rank), code, signal, {"last words"}});
  }
  Outputs Gone(const std::string& job, int64_t epoch, Phase phase = Phase::kRanks) {
    return Step(GroupGone{{{job, epoch}, phase}});
  }

  // ---- what came out ----
  template <typename T>
  static std::vector<T> All(const Outputs& out) {
    std::vector<T> found;
    for (const auto& output : out) {
      if (const T* value = std::get_if<T>(&output)) found.push_back(*value);
    }
    return found;
  }
  static std::vector<v1::AttemptStatus> Statuses(const Outputs& out) {
    std::vector<v1::AttemptStatus> found;
    for (const auto& send : All<Send>(out)) {
      if (send.message.has_attempt_status()) found.push_back(send.message.attempt_status());
    }
    return found;
  }
  // Every signal to the attempt's groups in `out`.
  static std::vector<StopSignal> Signals(const Outputs& out, const std::string& job,
                                         int64_t epoch) {
    std::vector<StopSignal> found;
    for (const auto& signal : All<SignalGroup>(out)) {
      if (signal.key.attempt == AttemptKey{job, epoch}) found.push_back(signal.signal);
    }
    return found;
  }
  v1::AttemptStatus LastStatus(const std::string& job, int64_t epoch) const {
    v1::AttemptStatus last;
    for (const auto& status : Statuses(all_)) {
      if (status.job_uid() == job && status.epoch() == epoch) last = status;
    }
    return last;
  }
  const Outputs& all() const { return all_; }
  AgentCore& core() { return core_; }

 private:
  AgentCore::Time now_{std::chrono::hours(1)};
  Clock::WallTime wall_{std::chrono::seconds(1700000000)};
  AgentCore core_;
  Outputs all_;
};

}  // namespace switchyard::agent
