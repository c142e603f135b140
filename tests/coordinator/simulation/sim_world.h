// A world for the coordinator's core, driven by a hand-turned clock and one random seed: agents,
// trainers, a shared file system, and a network that delays, repeats and loses.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "coordinator/job/memory_job_store.h"
#include "coordinator/reconcile/core.h"
#include "coordinator/service/published_state.h"

namespace switchyard::coordinator::simulation {

class SimClock final : public Clock {
 public:
  SteadyTime Steady() const override { return SteadyTime(std::chrono::hours(1) + now); }
  WallTime Wall() const override { return WallTime(std::chrono::hours(400000) + now); }
  std::chrono::milliseconds now{0};
};

// Plans what the spec says; the "configuration" is what simulated trainers need to know.
class SimPlanner final : public JobPlanner {
 public:
  absl::StatusOr<v1::Plan> Plan(const v1::JobSpec& spec, const std::vector<PlannerSlot>& slots,
                                std::optional<int64_t> train_sequences) override;
  std::string TrainerConfig(const TrainerConfigInput& input) override;
};

struct SimRank {
  int rank = 0;
  int slot = 0;
  bool joined = false;
  bool ready = false;
  bool exited = false;
  bool stopped_by_agent = false;
  std::string code;
  int64_t step = 0, resumed_from = 0;
};

struct SimAttempt {
  std::string uid;
  int64_t epoch = 0;
  agent::v1::AttemptState state = agent::v1::ATTEMPT_STATE_PREPARING;
  std::vector<SimRank> ranks;
  bool prepared = false;
  std::string rendezvous;
  std::vector<trainer::v1::CheckpointShard> shards;
};

struct SimAgent {
  std::string node;
  int slots = 2;
  int incarnation = 1;
  bool alive = true;
  std::chrono::milliseconds unreachable_until{0};
  uint64_t session = 0;
  std::map<AttemptKey, SimAttempt> attempts;
  std::map<std::string, int64_t> stopped;  // newest epoch told to stop, by uid
};

// The processes of one attempt, which talk to each other directly.
struct Gang {
  int world = 0;
  int64_t step = 0, total = 0, interval = 0;
  std::string output, resume;
  std::string rendezvous;
  std::chrono::milliseconds next_step{0};
  bool save_requested = false, stop_after_save = false, running = false, hangs = false;
};

struct FaultRates {
  double per_tick = 0;  // chance of one fault in each half second
};

class SimWorld final : public AgentTransport {
 public:
  SimWorld(uint64_t seed, int num_agents);
  ~SimWorld() override;

  void Run(std::chrono::milliseconds duration, const FaultRates& faults);
  // Users. Empty uid: the store failed.
  std::string Create(const std::string& request_id, int ranks, int64_t steps, int64_t interval);
  void RandomWish();
  // One fault, wherever rank 0 of the job's attempt is; returns that node, empty when none runs.
  std::string FailRank0(const std::string& uid, const std::string& code);
  // The job's processes live on and do nothing more.
  void Hang(const std::string& uid);
  void Pause(const std::string& uid);
  // Nothing at all happens for a while: the machine slept.
  void Freeze(std::chrono::milliseconds duration) { clock_.now += duration; }

  void Send(uint64_t session, const agent::v1::ConnectResponse& message) override;
  void Close(uint64_t session) override;

  Core& core() { return *core_; }
  bool coordinator_up() const { return core_ != nullptr; }
  MemoryJobStore& store() { return store_; }
  // Broken promises, in words; empty when all was well.
  const std::vector<std::string>& violations() const { return violations_; }
  int LiveProcesses(const std::string& uid) const;
  // Ends outages, so that liveness may be asked for.
  void Heal();
  void CheckAtEnd();
  std::map<std::string, int>& counters() { return counters_; }

 private:
  struct Event {
    std::chrono::milliseconds time;
    uint64_t order;
    std::function<void()> run;
    bool operator>(const Event& other) const {
      return std::tie(time, order) > std::tie(other.time, other.order);
    }
  };
  struct Session {
    std::string node;
    bool to_agent = true, to_core = true;  // each side may notice a break on its own
    std::chrono::milliseconds last_to_agent{0}, last_to_core{0};
  };

  bool Chance(double p) { return std::uniform_real_distribution<>(0, 1)(random_) < p; }
  int Pick(int low, int high) { return std::uniform_int_distribution<>(low, high)(random_); }
  void After(std::chrono::milliseconds delay, std::function<void()> run);
  void Violation(const std::string& text);

  void StartCoordinator();
  void StopCoordinator();
  void Tick(const FaultRates& faults);
  void InjectFault();
  void Follow();
  void CheckInvariants();

  void Connect(SimAgent& agent);
  void Break(SimAgent& agent);
  void ToCore(SimAgent& agent, const agent::v1::ConnectRequest& message);
  void Handle(SimAgent& agent, const agent::v1::ConnectResponse& message);
  void Start(SimAgent& agent, const agent::v1::StartRanks& start);
  void Stop(SimAgent& agent, const std::string& uid, int64_t epoch);
  void Report(SimAgent& agent, const SimAttempt& attempt);
  agent::v1::AttemptStatus StatusOf(const SimAttempt& attempt) const;
  void Exit(SimAgent& agent, SimAttempt& attempt, SimRank& rank, const std::string& code,
            bool by_agent);
  void CrashAgent(SimAgent& agent);

  void StepGangs();
  void StepGang(const AttemptKey& key, Gang& gang);
  void Save(const AttemptKey& key, Gang& gang, bool final);
  void ForEachRank(const AttemptKey& key,
                   const std::function<void(SimAgent&, SimAttempt&, SimRank&)>& use);

  class Witness;

  std::mt19937_64 random_;
  SimClock clock_;
  MemoryJobStore store_;
  SimPlanner planner_;
  CoreOptions options_;
  std::unique_ptr<PublishedState> published_;
  std::unique_ptr<Witness> witness_;
  std::unique_ptr<Core> core_;
  std::chrono::milliseconds coordinator_back_{0};
  std::map<std::string, SimAgent> agents_;
  std::map<uint64_t, Session> sessions_;
  std::map<AttemptKey, Gang> gangs_;
  std::map<std::string, AttemptKey> files_;  // published directories and who wrote them
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  uint64_t order_ = 0, next_session_ = 1, next_id_ = 1;
  std::vector<std::string> violations_;
  std::map<std::string, int> counters_;

  // A watcher that follows all jobs with resume tokens, across restarts.
  int64_t watch_revision_ = 0, watch_index_ = 0;
  std::map<std::string, v1::Job> watched_;
};

}  // namespace switchyard::coordinator::simulation
