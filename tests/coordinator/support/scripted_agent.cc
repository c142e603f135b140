#include "tests/coordinator/support/scripted_agent.h"

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "common/rpc/channel.h"

namespace switchyard::coordinator {

using agent::v1::ConnectRequest;
using agent::v1::ConnectResponse;

ScriptedAgent::ScriptedAgent(std::string address, std::string node, AgentScript script)
    : node_(std::move(node)),
      script_(std::move(script)),
      address_(std::move(address)),
      thread_([this] { Run(); }) {}

ScriptedAgent::~ScriptedAgent() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (context_ != nullptr) context_->TryCancel();
  }
  thread_.join();
}

void ScriptedAgent::Release() {
  std::lock_guard lock(mutex_);
  script_.hold_before_step = 0;
  script_.hold_publishing = false;
}

void ScriptedAgent::Reconnect(const std::string& address) {
  std::lock_guard lock(mutex_);
  address_ = address;
  if (context_ != nullptr) context_->TryCancel();
}

void ScriptedAgent::Terminate() {
  std::lock_guard lock(mutex_);
  for (auto& [key, attempt] : attempts_) {
    attempt.status.set_stop_reason("the node's agent was told to end");
    End(attempt, "KILLED", /*by_agent=*/true);
  }
}

int ScriptedAgent::LiveRanks() {
  std::lock_guard lock(mutex_);
  int live = 0;
  for (const auto& [key, attempt] : attempts_) {
    for (const auto& rank : attempt.status.ranks()) live += !rank.exited();
  }
  return live;
}

std::map<int64_t, int> ScriptedAgent::Starts() {
  std::lock_guard lock(mutex_);
  return starts_;
}

std::set<std::string> ScriptedAgent::removed() {
  std::lock_guard lock(mutex_);
  return removed_;
}

grpc::Status ScriptedAgent::last_status() {
  std::lock_guard lock(mutex_);
  return last_status_;
}

bool ScriptedAgent::left() {
  std::lock_guard lock(mutex_);
  return left_;
}

void ScriptedAgent::Run() {
  while (true) {
    {
      std::lock_guard lock(mutex_);
      if (stopping_ || left_) return;
    }
    Session();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void ScriptedAgent::Session() {
  std::unique_ptr<agent::v1::AgentService::Stub> stub;
  std::unique_ptr<grpc::ClientReaderWriter<ConnectRequest, ConnectResponse>> stream;
  {
    std::lock_guard lock(mutex_);
    context_ = std::make_unique<grpc::ClientContext>();
    stub = agent::v1::AgentService::NewStub(rpc::MakeChannel(address_));
    stream = stub->Connect(context_.get());
    stream_ = stream.get();
    ConnectRequest message;
    auto& hello = *message.mutable_hello();
    hello.set_node(node_);
    hello.set_incarnation(node_ + "/" + std::to_string(reinterpret_cast<uintptr_t>(this)));
    hello.set_version("test");
    hello.set_protocol_min(1);
    hello.set_protocol_max(script_.allocation.empty() ? 1 : 2);
    hello.set_allocation(script_.allocation);
    hello.mutable_inventory()->set_memory_domain("one");
    hello.mutable_inventory()->set_cpu_cores(4);
    for (int i = 0; i < script_.slots; ++i) {
      auto& slot = *hello.mutable_inventory()->add_slots();
      slot.set_index(i);
      slot.set_device("cpu");
      slot.set_product("test");
      slot.set_memory_bytes(int64_t{4} << 30);
    }
    for (const auto& [key, attempt] : attempts_) *hello.add_attempts() = attempt.status;
    Say(message);
  }
  std::jthread pulse([this](std::stop_token stop) {
    for (int i = 1; !stop.stop_requested(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      std::lock_guard lock(mutex_);
      if (stream_ == nullptr) return;
      Advance();
      if (i % 25 != 0) continue;
      ConnectRequest beat;
      beat.mutable_heartbeat()->set_sequence(i);
      Say(beat);
    }
  });
  ConnectResponse message;
  while (stream->Read(&message)) {
    std::lock_guard lock(mutex_);
    Handle(message);
  }
  {
    std::lock_guard lock(mutex_);
    stream_ = nullptr;
  }
  pulse.request_stop();
  pulse.join();
  const grpc::Status status = stream->Finish();
  std::lock_guard lock(mutex_);
  last_status_ = status;
}

void ScriptedAgent::Say(const ConnectRequest& message) {
  if (stream_ != nullptr) stream_->Write(message);
}

void ScriptedAgent::Report(const Attempt& attempt) {
  ConnectRequest message;
  *message.mutable_attempt_status() = attempt.status;
  Say(message);
}

void ScriptedAgent::Handle(const ConnectResponse& message) {
  ConnectRequest answer;
  if (message.has_probe_paths()) {
    auto& result = *answer.mutable_probe_result();
    result.set_probe_id(message.probe_paths().probe_id());
    for (const auto& problem : script_.probe_problems) result.add_problems(problem);
    result.set_model_fingerprint("f");
    result.set_disk_free_bytes(int64_t{1} << 40);
    Say(answer);
  } else if (message.has_prepare_data()) {
    const auto& prepare = message.prepare_data();
    Attempt& attempt = attempts_[{prepare.job_uid(), prepare.epoch()}];
    attempt.status.set_job_uid(prepare.job_uid());
    attempt.status.set_epoch(prepare.epoch());
    attempt.status.set_state(agent::v1::ATTEMPT_STATE_PREPARED);
    auto& data = *attempt.status.mutable_data();
    data.set_ready(script_.data_error.empty());
    data.set_error(script_.data_error);
    data.set_user_error(true);
    data.set_train_dir("/shards/train");
    data.set_train_sequences(64);
    data.set_train_targets(4096);
    Report(attempt);
  } else if (message.has_start_ranks()) {
    StartRanks(message.start_ranks());
  } else if (message.has_relay_line()) {
    const auto it = attempts_.find({message.relay_line().job_uid(), message.relay_line().epoch()});
    if (it == attempts_.end()) return;
    const auto& line = message.relay_line().line();
    if (line.has_rendezvous()) it->second.joined = true;
    if (line.has_checkpoint_now()) {
      it->second.save_now = true;
      it->second.save_then_stop |= line.checkpoint_now().then_stop();
    }
  } else if (message.has_stop_attempt()) {
    const auto& stop = message.stop_attempt();
    Attempt& attempt = attempts_[{stop.job_uid(), stop.epoch()}];
    attempt.status.set_job_uid(stop.job_uid());
    attempt.status.set_epoch(stop.epoch());
    End(attempt, "KILLED", /*by_agent=*/true);
  } else if (message.has_publish_checkpoint()) {
    if (script_.hold_publishing) return;
    const auto& publish = message.publish_checkpoint();
    published_.insert(publish.final_path());
    auto& done = *answer.mutable_checkpoint_published();
    done.set_job_uid(publish.job_uid());
    done.set_epoch(publish.epoch());
    done.set_step(publish.step());
    done.set_final_path(publish.final_path());
    done.set_bytes(1234);
    Say(answer);
  } else if (message.has_remove_checkpoint()) {
    removed_.insert(message.remove_checkpoint().path());
  } else if (message.has_leave()) {
    left_ = true;
    context_->TryCancel();
  } else if (message.has_attempt_ack()) {
    attempts_.erase({message.attempt_ack().job_uid(), message.attempt_ack().epoch()});
  }
}

void ScriptedAgent::StartRanks(const agent::v1::StartRanks& start) {
  Attempt& attempt = attempts_[{start.job_uid(), start.epoch()}];
  if (attempt.status.ranks_size() > 0) return;
  ++starts_[start.epoch()];
  const auto config = nlohmann::json::parse(start.trainer_config_json());
  attempt.output = config["checkpoint"]["output"];
  const std::string resume = config.value("resume_from", "");
  if (!resume.empty())
    attempt.resumed_from = std::atoll(resume.substr(resume.rfind('-') + 1).c_str());
  attempt.step = attempt.resumed_from;
  attempt.status.set_job_uid(start.job_uid());
  attempt.status.set_epoch(start.epoch());
  attempt.status.set_state(agent::v1::ATTEMPT_STATE_STARTING);
  for (const auto& local : start.ranks()) {
    auto& rank = *attempt.status.add_ranks();
    rank.set_rank(local.rank());
    rank.set_slot(local.slot());
    rank.set_pid(100 + local.rank());
    rank.set_phase("loading");
    if (local.rank() == 0) attempt.status.set_rendezvous_id("r");
    ConnectRequest log;
    auto& chunk = *log.mutable_log_chunk();
    chunk.set_job_uid(start.job_uid());
    chunk.set_epoch(start.epoch());
    chunk.set_rank(local.rank());
    chunk.set_text("rank " + std::to_string(local.rank()) + " starts\nand loads\xFF\n");
    Say(log);
  }
  Report(attempt);
}

void ScriptedAgent::Advance() {
  for (auto& [key, attempt] : attempts_) AdvanceAttempt(attempt);
}

void ScriptedAgent::AdvanceAttempt(Attempt& attempt) {
  auto& status = attempt.status;
  if (status.ranks().empty() || status.state() == agent::v1::ATTEMPT_STATE_ENDED || !attempt.joined)
    return;
  if (status.state() == agent::v1::ATTEMPT_STATE_STARTING) {
    status.set_state(agent::v1::ATTEMPT_STATE_RUNNING);
    for (auto& rank : *status.mutable_ranks()) {
      rank.set_ready(true);
      rank.set_phase("training");
      rank.set_resumed_from_step(attempt.resumed_from);
    }
    return Report(attempt);
  }
  if (attempt.save_now) {
    attempt.save_now = false;
    Save(attempt, false);
    if (attempt.save_then_stop) return End(attempt, "STOPPED", false);
  }
  if (script_.hold_before_step > 0 && attempt.step + 1 >= script_.hold_before_step) return;
  ++attempt.step;
  for (auto& rank : *status.mutable_ranks()) {
    rank.set_step(attempt.step);
    ConnectRequest message;
    auto& report = *message.mutable_rank_report();
    report.set_job_uid(status.job_uid());
    report.set_epoch(status.epoch());
    report.set_rank(rank.rank());
    auto& step = *report.mutable_line()->mutable_step();
    step.set_step(attempt.step);
    step.set_loss(10.0 / static_cast<double>(attempt.step));
    step.set_tokens(1000);
    step.set_step_seconds(0.1 * (1 + rank.rank()));
    step.set_peak_memory_bytes(1000 + rank.rank());
    Say(message);
    if (rank.rank() != 0) continue;
    auto& load = *report.mutable_line()->mutable_expert_load();
    load.set_step(attempt.step);
    load.set_num_experts(2);
    load.add_layers()->add_tokens_per_expert(7);
    Say(message);
  }
  if (status.epoch() == script_.fail_in_attempt) return End(attempt, script_.exit_code, false);
  if (attempt.step >= script_.total_steps) {
    Save(attempt, true);
    return End(attempt, "OK", false);
  }
  if (script_.save_interval > 0 && attempt.step % script_.save_interval == 0) Save(attempt, false);
}

void ScriptedAgent::Save(Attempt& attempt, bool final) {
  const std::string path =
      final ? attempt.output + "/final"
            : attempt.output + "/checkpoints/step-" + std::to_string(attempt.step);
  if (published_.count(path) > 0) return;
  for (const auto& rank : attempt.status.ranks()) {
    auto& shard = *attempt.status.add_checkpoint_shards();
    shard.set_rank(rank.rank());
    shard.set_step(attempt.step);
    shard.set_final(final);
    shard.set_stage_path(attempt.output + "/.stage/" + std::to_string(attempt.step));
    shard.set_final_path(path);
    shard.set_bytes(500);
  }
  Report(attempt);
}

void ScriptedAgent::End(Attempt& attempt, const std::string& code, bool by_agent) {
  auto& status = attempt.status;
  if (status.state() != agent::v1::ATTEMPT_STATE_ENDED) {
    const bool failed = code != "OK" && code != "STOPPED" && !by_agent;
    for (auto& rank : *status.mutable_ranks()) {
      rank.set_exited(true);
      rank.set_stopped_by_agent(by_agent || (failed && rank.rank() != 0));
      rank.set_exit_code(code == "OK" || code == "STOPPED" ? 0 : 137);
      rank.mutable_exit()->set_code(code);
      rank.mutable_exit()->set_message("rank " + std::to_string(rank.rank()) + " ended: " + code);
      rank.mutable_exit()->set_step(attempt.step);
      if (failed) rank.add_log_tail("the last line");
    }
    if (failed) status.set_first_failed_rank(0);
    status.set_state(agent::v1::ATTEMPT_STATE_ENDED);
  }
  Report(attempt);
}

}  // namespace switchyard::coordinator
