// One attempt on this node: data preparation, then ranks, then nothing.
//
// Keeps the attempt's status as it is told to the coordinator, decides what its events mean (which
// rank failed first, when everything is gone) and when to signal. Knows nothing of other attempts,
// slots' owners, sessions or journals: AgentCore asks and arranges. Every call gets `now`; outputs
// are appended in order.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "worker/agent/core/types.h"

namespace switchyard::agent {

// How long processes may take to end by themselves after SIGTERM.
struct Graces {
  std::chrono::milliseconds stop{3000};        // told to stop
  std::chrono::milliseconds failure{1000};     // a rank failed: the others only wait for it
  std::chrono::milliseconds abandoned{30000};  // no coordinator: time to save
};

class Attempt {
 public:
  using Time = Clock::SteadyTime;

  Attempt(AttemptKey key, Graces graces);
  // A result found in the journal.
  static Attempt FromJournal(v1::AttemptStatus result);

  void StartPreparation(const v1::PrepareData& request, Outputs& out);
  // Remembers the ranks; StartRanks starts them once the slots are free. Only when has_ranks() is
  // false.
  void AcceptRanks(const v1::StartRanks& request);
  void StartRanks(Outputs& out);
  // Ends the attempt before any process of it runs, naming what is wrong with the command.
  void Reject(const std::string& error);
  void Relay(const trainer::v1::AgentLine& line, Outputs& out);
  // Idempotent; a later call can only make it end sooner.
  void Stop(const std::string& reason, std::chrono::milliseconds grace, Time now, Outputs& out);
  // The checkpoint that became `final_path` is published: its parts are told no more.
  void ForgetShards(const std::string& final_path);

  void OnStarted(const ProcessStarted& event, Outputs& out);
  void OnStartFailed(const ProcessStartFailed& event, Time now, Clock::WallTime wall, Outputs& out);
  void OnLine(const TrainerSaid& event);
  void OnPreparationLine(const PreparationSaid& event);
  void OnExited(const ProcessExited& event, Time now, Clock::WallTime wall, Outputs& out);
  void OnGroupGone(Phase phase);
  // Sends the signals that are due.
  void Advance(Time now, Outputs& out);
  std::optional<Time> deadline() const { return kill_at_; }

  const AttemptKey& key() const { return key_; }
  const std::string& job() const { return job_; }
  // Up to date but for log tails of ranks that the agent stopped.
  const v1::AttemptStatus& status() const { return status_; }
  bool ended() const { return status_.state() == v1::ATTEMPT_STATE_ENDED; }
  bool stopping() const { return stopping_; }
  bool has_ranks() const { return !ranks_.empty(); }
  // Ranks were accepted, none was started and nothing of the attempt runs.
  bool waiting_to_start() const;
  // A process of it may be in the slot.
  bool HoldsSlot(int slot) const;
  std::vector<int> slots() const;
  // True once after each change worth telling; progress alone waits for TakeProgress.
  bool TakeChanged() { return std::exchange(changed_, false); }
  bool TakeProgress() { return std::exchange(progress_changed_, false); }

 private:
  enum class Life { kWaiting, kSpawning, kAlive, kExited };
  struct Rank {
    int rank = 0;
    int slot = 0;
    Life life = Life::kWaiting;
  };
  // Processes of one group. It is active until everything was seen to be gone.
  struct Group {
    int pending = 0;       // asked for or alive
    bool started = false;  // at least one process ran
    bool gone = false;
    bool active() const { return pending > 0 || (started && !gone); }
  };

  Group& group(Phase phase) { return phase == Phase::kRanks ? rank_group_ : preparation_group_; }
  Rank* FindRank(int rank, v1::RankStatus** status);
  void Fail(int rank, const std::string& why, Time now, Outputs& out);
  void RankExited(const ProcessExited& event, Time now, Clock::WallTime wall, Outputs& out);
  void PreparationExited(const ProcessExited& event);
  // Once no process of the group is left: also none of their descendants.
  void SweepGroup(Phase phase, Time now, Outputs& out);
  void Signal(StopSignal signal, Outputs& out);
  void Update();
  bool AllRanksExited() const;

  AttemptKey key_;
  Graces graces_;
  std::string job_;
  std::string config_json_;
  std::string trace_id_;
  v1::AttemptStatus status_;
  std::vector<Rank> ranks_;  // as status_.ranks()
  Group rank_group_;
  Group preparation_group_;
  v1::DataStatus data_result_;         // last result or error line of data preparation
  trainer::v1::AgentLine rendezvous_;  // for ranks that start after it came
  trainer::v1::AgentLine request_;     // last checkpoint_now or stop
  bool stopping_ = false;
  bool failed_ = false;  // stopping_ because of a rank
  bool kill_sent_ = false;
  std::optional<Time> kill_at_;
  bool changed_ = true;
  bool progress_changed_ = false;
};

}  // namespace switchyard::agent
