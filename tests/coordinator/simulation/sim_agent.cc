// The agents' and trainers' side of SimWorld.
#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/coordinator/simulation/sim_world.h"

namespace switchyard::coordinator::simulation {

using agent::v1::AttemptStatus;
using agent::v1::ConnectRequest;
using agent::v1::ConnectResponse;
using std::chrono::milliseconds;

void SimWorld::Connect(SimAgent& agent) {
  const uint64_t id = next_session_++;
  agent.session = id;
  sessions_[id].node = agent.node;
  ConnectRequest message;
  auto& hello = *message.mutable_hello();
  hello.set_node(agent.node);
  hello.set_incarnation(absl::StrCat(agent.node, "#", agent.incarnation));
  hello.set_protocol_min(1);
  hello.set_protocol_max(1);
  hello.mutable_inventory()->set_memory_domain("one");
  for (int i = 0; i < agent.slots; ++i) {
    auto& slot = *hello.mutable_inventory()->add_slots();
    slot.set_index(i);
    slot.set_device("cpu");
  }
  for (const auto& [key, attempt] : agent.attempts) *hello.add_attempts() = StatusOf(attempt);
  ToCore(agent, message);
}

void SimWorld::Break(SimAgent& agent) {
  const uint64_t id = agent.session;
  if (id == 0) return;
  Session& session = sessions_[id];
  session.to_agent = session.to_core = false;  // nothing gets through from now on
  After(milliseconds(Pick(0, 6000)), [this, &agent, id] {
    if (agent.session == id) agent.session = 0;
  });
  After(milliseconds(Pick(0, 12000)), [this, id, node = agent.node] {
    if (core_ != nullptr) core_->OnDisconnected(id, node);
  });
}

void SimWorld::ToCore(SimAgent& agent, const ConnectRequest& message) {
  const uint64_t id = agent.session;
  if (id == 0) return;
  Session& session = sessions_[id];
  session.last_to_core = std::max(session.last_to_core, clock_.now + milliseconds(Pick(1, 150)));
  const int copies = message.has_attempt_status() && Chance(0.05) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    After(session.last_to_core - clock_.now, [this, id, message, node = agent.node] {
      if (core_ == nullptr || !sessions_[id].to_core) return;
      if (message.has_hello()) {
        if (!core_->OnHello(id, message.hello()).ok()) Close(id);
      } else {
        core_->OnMessage(id, node, message);
      }
      (void)core_->Step();
      Follow();
      CheckInvariants();
    });
  }
}

void SimWorld::Send(uint64_t id, const ConnectResponse& message) {
  const auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  Session& session = it->second;
  session.last_to_agent = std::max(session.last_to_agent, clock_.now + milliseconds(Pick(1, 150)));
  const int copies = !message.has_welcome() && Chance(0.05) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    After(session.last_to_agent - clock_.now, [this, id, message] {
      if (!sessions_[id].to_agent) return;
      SimAgent& agent = agents_.at(sessions_[id].node);
      if (agent.alive && agent.session == id) Handle(agent, message);
    });
  }
}

void SimWorld::Close(uint64_t id) {
  const auto it = sessions_.find(id);
  if (it == sessions_.end()) return;
  it->second.to_core = false;
  After(milliseconds(Pick(1, 200)), [this, id, node = it->second.node] {
    sessions_[id].to_agent = false;
    SimAgent& agent = agents_.at(node);
    if (agent.session == id) agent.session = 0;
  });
}

void SimWorld::Handle(SimAgent& agent, const ConnectResponse& message) {
  switch (message.message_case()) {
    case ConnectResponse::kProbePaths: {
      ConnectRequest answer;
      answer.mutable_probe_result()->set_probe_id(message.probe_paths().probe_id());
      answer.mutable_probe_result()->set_model_fingerprint("same");
      ToCore(agent, answer);
      break;
    }
    case ConnectResponse::kPrepareData: {
      const auto& prepare = message.prepare_data();
      const AttemptKey key{prepare.job_uid(), prepare.epoch()};
      if (agent.stopped.count(key.first) && agent.stopped[key.first] >= key.second) break;
      SimAttempt& attempt = agent.attempts[key];
      attempt.uid = key.first;
      attempt.epoch = key.second;
      if (attempt.prepared) break;
      Report(agent, attempt);
      After(milliseconds(Pick(50, 1500)), [this, &agent, key, incarnation = agent.incarnation] {
        const auto it = agent.attempts.find(key);
        if (it == agent.attempts.end() || agent.incarnation != incarnation ||
            it->second.state != agent::v1::ATTEMPT_STATE_PREPARING) {
          return;
        }
        it->second.prepared = true;
        it->second.state = agent::v1::ATTEMPT_STATE_PREPARED;
        Report(agent, it->second);
      });
      break;
    }
    case ConnectResponse::kStartRanks:
      Start(agent, message.start_ranks());
      break;
    case ConnectResponse::kStopAttempt:
      Stop(agent, message.stop_attempt().job_uid(), message.stop_attempt().epoch());
      break;
    case ConnectResponse::kRelayLine: {
      const AttemptKey key{message.relay_line().job_uid(), message.relay_line().epoch()};
      const auto it = agent.attempts.find(key);
      if (it == agent.attempts.end()) break;
      const auto& line = message.relay_line().line();
      if (line.has_rendezvous()) {
        if (line.rendezvous().id() != gangs_[key].rendezvous)
          Violation("a rendezvous of another attempt arrived");
        for (SimRank& rank : it->second.ranks) rank.joined = true;
      }
      if (line.has_checkpoint_now() && gangs_[key].running) {
        gangs_[key].save_requested = true;
        gangs_[key].stop_after_save |= line.checkpoint_now().then_stop();
      }
      break;
    }
    case ConnectResponse::kPublishCheckpoint: {
      const auto& publish = message.publish_checkpoint();
      ConnectRequest answer;
      auto& published = *answer.mutable_checkpoint_published();
      published.set_job_uid(publish.job_uid());
      published.set_epoch(publish.epoch());
      published.set_step(publish.step());
      published.set_final_path(publish.final_path());
      const AttemptKey writer{publish.job_uid(), publish.epoch()};
      const auto [it, fresh] = files_.emplace(publish.final_path(), writer);
      if (!fresh && it->second != writer) published.set_error("exists");
      ToCore(agent, answer);
      break;
    }
    case ConnectResponse::kRemoveCheckpoint:
      files_.erase(message.remove_checkpoint().path());
      break;
    case ConnectResponse::kAttemptAck:
      agent.attempts.erase({message.attempt_ack().job_uid(), message.attempt_ack().epoch()});
      break;
    default:
      break;
  }
}

void SimWorld::Start(SimAgent& agent, const agent::v1::StartRanks& start) {
  const AttemptKey key{start.job_uid(), start.epoch()};
  if (agent.stopped.count(key.first) && agent.stopped[key.first] >= key.second) return;
  SimAttempt& attempt = agent.attempts[key];
  if (!attempt.ranks.empty() || attempt.state == agent::v1::ATTEMPT_STATE_ENDED) return;
  attempt.uid = key.first;
  attempt.epoch = key.second;
  attempt.state = agent::v1::ATTEMPT_STATE_STARTING;
  Gang& gang = gangs_[key];
  char output[200], resume[200];
  long long total = 0, interval = 0;
  std::sscanf(start.trainer_config_json().c_str(), "%d %lld %lld %199s %199s", &gang.world, &total,
              &interval, output, resume);
  gang.total = total;
  gang.interval = interval;
  gang.output = output;
  gang.resume = resume;
  for (const auto& local : start.ranks()) {
    for (const auto& [other_key, other] : agent.attempts) {
      for (const SimRank& rank : other.ranks) {
        if (!rank.exited && rank.slot == local.slot()) {
          Violation(
              absl::StrFormat("slot %d of %s got a second process", local.slot(), agent.node));
        }
      }
    }
    SimRank& rank = attempt.ranks.emplace_back();
    rank.rank = local.rank();
    rank.slot = local.slot();
    if (rank.rank == 0) {
      gang.rendezvous = absl::StrCat(key.first, "/", key.second);
      attempt.rendezvous = gang.rendezvous;
      if (gang.resume != "-" && files_.count(gang.resume) == 0)
        Violation("resumes from nothing: " + gang.resume);
      if (gang.resume != "-" && Chance(0.03)) {
        Report(agent, attempt);
        Exit(agent, attempt, rank, "CHECKPOINT_CORRUPT", false);
        return;
      }
    }
  }
  Report(agent, attempt);
}

void SimWorld::Exit(SimAgent& agent, SimAttempt& attempt, SimRank& rank, const std::string& code,
                    bool by_agent) {
  if (rank.exited) return;
  rank.exited = true;
  rank.code = code;
  rank.stopped_by_agent = by_agent;
  const bool failed = code != "OK" && code != "STOPPED" && !by_agent;
  if (failed) {
    for (SimRank& other : attempt.ranks) Exit(agent, attempt, other, "KILLED", true);
  }
  const bool all = std::all_of(attempt.ranks.begin(), attempt.ranks.end(),
                               [](const SimRank& r) { return r.exited; });
  if (all) {
    attempt.state = agent::v1::ATTEMPT_STATE_ENDED;
    Report(agent, attempt);
  }
}

void SimWorld::Stop(SimAgent& agent, const std::string& uid, int64_t epoch) {
  agent.stopped[uid] = std::max(agent.stopped[uid], epoch);
  for (auto& [key, attempt] : agent.attempts) {
    if (key.first != uid || key.second > epoch) continue;
    if (attempt.state == agent::v1::ATTEMPT_STATE_STOPPING) continue;
    const bool live = std::any_of(attempt.ranks.begin(), attempt.ranks.end(),
                                  [](const SimRank& rank) { return !rank.exited; });
    attempt.state = live ? agent::v1::ATTEMPT_STATE_STOPPING : agent::v1::ATTEMPT_STATE_ENDED;
    Report(agent, attempt);
    if (!live) continue;
    // Processes take their time to go.
    After(milliseconds(Pick(0, 4000)), [this, &agent, key = key, incarnation = agent.incarnation] {
      const auto it = agent.attempts.find(key);
      if (it == agent.attempts.end() || agent.incarnation != incarnation) return;
      for (SimRank& rank : it->second.ranks) Exit(agent, it->second, rank, "KILLED", true);
    });
  }
  if (agent.attempts.count({uid, epoch}) > 0) return;
  SimAttempt none;
  none.uid = uid;
  none.epoch = epoch;
  none.state = agent::v1::ATTEMPT_STATE_ENDED;
  Report(agent, none);
}

AttemptStatus SimWorld::StatusOf(const SimAttempt& attempt) const {
  AttemptStatus status;
  status.set_job_uid(attempt.uid);
  status.set_epoch(attempt.epoch);
  status.set_state(attempt.state);
  if (attempt.prepared) {
    status.mutable_data()->set_ready(true);
    status.mutable_data()->set_train_sequences(1000);
  }
  status.set_rendezvous_id(attempt.rendezvous);
  for (const SimRank& rank : attempt.ranks) {
    auto& copy = *status.add_ranks();
    copy.set_rank(rank.rank);
    copy.set_slot(rank.slot);
    copy.set_ready(rank.ready);
    copy.set_step(rank.step);
    copy.set_resumed_from_step(rank.resumed_from);
    copy.set_exited(rank.exited);
    copy.set_stopped_by_agent(rank.stopped_by_agent);
    if (!rank.exited) continue;
    copy.set_exit_code(rank.code == "OK" || rank.code == "STOPPED" ? 0 : 137);
    copy.mutable_exit()->set_code(rank.code);
    copy.mutable_exit()->set_message(absl::StrFormat("%s after step %d", rank.code, rank.step));
    copy.mutable_exit()->set_step(rank.step);
    if (rank.code != "OK" && rank.code != "STOPPED" && !rank.stopped_by_agent) {
      status.set_first_failed_rank(rank.rank);
    }
  }
  for (const auto& shard : attempt.shards) *status.add_checkpoint_shards() = shard;
  return status;
}

void SimWorld::Report(SimAgent& agent, const SimAttempt& attempt) {
  ConnectRequest message;
  *message.mutable_attempt_status() = StatusOf(attempt);
  ToCore(agent, message);
}

// The agent dies with its trainers. Its journal survives, mostly.
void SimWorld::CrashAgent(SimAgent& agent) {
  if (!agent.alive) return;
  Break(agent);
  agent.alive = false;
  agent.session = 0;
  const bool amnesia = Chance(0.2);
  for (auto& [key, attempt] : agent.attempts) {
    for (SimRank& rank : attempt.ranks) {
      if (rank.exited) continue;
      rank.exited = true;
      rank.code = "AGENT_RESTARTED";
    }
    attempt.state = agent::v1::ATTEMPT_STATE_ENDED;
  }
  if (amnesia) agent.attempts.clear();
  After(milliseconds(Pick(500, 20000)), [&agent] {
    agent.alive = true;
    ++agent.incarnation;
  });
}

void SimWorld::ForEachRank(const AttemptKey& key,
                           const std::function<void(SimAgent&, SimAttempt&, SimRank&)>& use) {
  for (auto& [name, agent] : agents_) {
    const auto it = agent.attempts.find(key);
    if (it == agent.attempts.end()) continue;
    for (SimRank& rank : it->second.ranks) use(agent, it->second, rank);
  }
}

void SimWorld::StepGangs() {
  for (auto& [key, gang] : gangs_) StepGang(key, gang);
}

void SimWorld::StepGang(const AttemptKey& key, Gang& gang) {
  int live = 0, joined = 0, present = 0;
  ForEachRank(key, [&](SimAgent&, SimAttempt&, SimRank& rank) {
    ++present;
    live += !rank.exited;
    joined += !rank.exited && rank.joined;
  });
  if (live == 0) return;
  if (!gang.running) {
    if (joined < gang.world) return;
    gang.running = true;
    gang.step =
        gang.resume == "-" ? 0 : std::atoll(gang.resume.substr(gang.resume.rfind('-') + 1).c_str());
    ForEachRank(key, [&](SimAgent& agent, SimAttempt& attempt, SimRank& rank) {
      rank.ready = true;
      rank.step = rank.resumed_from = gang.step;
      attempt.state = agent::v1::ATTEMPT_STATE_RUNNING;
      Report(agent, attempt);
    });
    return;
  }
  if (live < gang.world) {  // a peer is gone: the others end, whatever the coordinator does
    ForEachRank(key, [&](SimAgent& agent, SimAttempt& attempt, SimRank& rank) {
      if (!rank.exited) Exit(agent, attempt, rank, "PEER_LOST", false);
    });
    return;
  }
  if (gang.hangs) return;
  ++gang.step;
  ForEachRank(key, [&](SimAgent& agent, SimAttempt&, SimRank& rank) {
    rank.step = gang.step;
    ConnectRequest message;
    auto& report = *message.mutable_rank_report();
    report.set_job_uid(key.first);
    report.set_epoch(key.second);
    report.set_rank(rank.rank);
    report.mutable_line()->mutable_step()->set_step(gang.step);
    if (gang.step % 5 == 0) ToCore(agent, message);
  });
  const bool end = gang.step >= gang.total;
  const bool stop = gang.stop_after_save && !end;
  if (end || gang.save_requested || (gang.interval > 0 && gang.step % gang.interval == 0))
    Save(key, gang, end);
  gang.save_requested = false;
  if (end || stop) {
    ForEachRank(key, [&](SimAgent& agent, SimAttempt& attempt, SimRank& rank) {
      Exit(agent, attempt, rank, end ? "OK" : "STOPPED", false);
    });
  }
}

void SimWorld::Save(const AttemptKey& key, Gang& gang, bool final) {
  const std::string path =
      final ? gang.output + "/final" : absl::StrCat(gang.output, "/checkpoints/step-", gang.step);
  if (files_.count(path) > 0) return;
  ForEachRank(key, [&](SimAgent& agent, SimAttempt& attempt, SimRank& rank) {
    auto& shard = attempt.shards.emplace_back();
    shard.set_rank(rank.rank);
    shard.set_step(gang.step);
    shard.set_final(final);
    shard.set_bytes(10);
    shard.set_stage_path(
        absl::StrFormat("%s/.stage/e%d/step-%d", gang.output, key.second, gang.step));
    shard.set_final_path(path);
    Report(agent, attempt);
  });
}

}  // namespace switchyard::coordinator::simulation
