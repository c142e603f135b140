// The agent's logic as a pure step function: an input and the time in, what to do out.
//
// Owns what the node promises: it obeys only the newest epoch of a job, starts an attempt only when
// every older process in its slots is gone, tells how attempts stand, keeps results until they are
// acknowledged, and ends attempts when the coordinator has been away for longer than the execution
// grant. Does no I/O and reads no clock: the host (worker/agent/host) or a simulation does what the
// outputs say and feeds the answers back. Not thread-safe.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/agent/core/attempt.h"
#include "worker/agent/core/ledger.h"

namespace switchyard::agent {

// Oldest and newest protocol that it speaks; the coordinator chooses. 2 added Leave.
inline constexpr int kOldestProtocol = 1;
inline constexpr int kNewestProtocol = 2;

class AgentCore {
 public:
  using Time = Clock::SteadyTime;

  struct Options {
    std::string node;
    std::string incarnation;  // changes with every start of the agent
    std::string boot_id;
    std::string version;
    // "{job_uid}/{epoch}" when it was started for this attempt alone: then it ends when it is told
    // to leave, or when the execution grant is over. Empty: it serves whatever comes.
    std::string allocation;
    v1::Inventory inventory;
    Graces graces;
    // Until a Welcome says otherwise.
    std::chrono::milliseconds heartbeat_interval{2000};
    std::chrono::milliseconds lease{10000};
    std::chrono::milliseconds execution_grant{600000};
  };
  // What the earlier incarnation left: results without AttemptAck, and the store they are for.
  struct Recovered {
    std::vector<v1::AttemptStatus> results;
    std::string store_id;
  };
  struct Usage {
    int slots_total = 0;
    int slots_used = 0;
    int attempts_live = 0;
    int results_unacknowledged = 0;
  };

  AgentCore(Options options, Recovered recovered, Time now);

  Outputs Step(const Input& input, Time now, Clock::WallTime wall);
  // When to call Step(Tick{}) at the latest.
  std::optional<Time> NextDeadline() const;
  Usage usage() const;
  // Name of the job as the coordinator gave it; empty when the attempt is unknown.
  std::string JobName(const AttemptKey& key) const;
  // True between Welcome and the end of the stream.
  bool in_session() const { return welcomed_; }
  // True once the coordinator has told an agent of one attempt that there is nothing left to do.
  bool left() const { return left_; }

 private:
  void Handle(const Tick&, Outputs&) {}
  void Handle(const StreamOpened&, Outputs& out);
  void Handle(const StreamClosed&, Outputs& out);
  void Handle(const FromCoordinator& input, Outputs& out);
  void Handle(const ProcessStarted& input, Outputs& out);
  void Handle(const ProcessStartFailed& input, Outputs& out);
  void Handle(const TrainerSaid& input, Outputs& out);
  void Handle(const PreparationSaid& input, Outputs& out);
  void Handle(const ProcessExited& input, Outputs& out);
  void Handle(const GroupGone& input, Outputs& out);
  void Handle(const ProbeDone& input, Outputs& out);
  void Handle(const PublishDone& input, Outputs& out);
  void Handle(const ShutdownRequested&, Outputs& out);

  void On(const v1::Welcome& welcome, Outputs& out);
  void On(const v1::Leave& leave, Outputs& out);
  void On(const v1::ProbePaths& request, Outputs& out);
  void On(const v1::PrepareData& request, Outputs& out);
  void On(const v1::StartRanks& request, Outputs& out);
  void On(const v1::StopAttempt& request, Outputs& out);
  void On(const v1::RelayLine& request, Outputs& out);
  void On(const v1::PublishCheckpoint& request, Outputs& out);
  void On(const v1::AttemptAck& ack, Outputs& out);

  Attempt* Find(const AttemptKey& key);
  // The attempt a Prepare or Start command is for; null when the command is stale, repeated or
  // refused (then what there is to say was said).
  Attempt* Admit(const AttemptKey& key, bool repeated_if_known, Outputs& out);
  std::string SlotProblem(const v1::StartRanks& request) const;
  void StopThrough(const std::string& job_uid, int64_t epoch, const std::string& reason,
                   Outputs& out);
  bool AnyLive(const std::string& job_uid, int64_t through_epoch) const;
  bool SlotsFree(const Attempt& attempt) const;
  void StartWaiting(Outputs& out);
  void RunTimers(Outputs& out);
  void TellChanges(Outputs& out);
  void SendStatus(const v1::AttemptStatus& status, Outputs& out);
  void SendHello(Outputs& out);
  template <typename Fill>
  static void Say(Outputs& out, Fill fill) {
    agent::Send send;
    fill(send.message);
    out.push_back(std::move(send));
  }

  Options options_;
  Time now_;
  Clock::WallTime wall_{};
  std::map<AttemptKey, Attempt> attempts_;
  Ledger ledger_;
  std::string store_id_;

  bool open_ = false;      // stream stands
  bool welcomed_ = false;  // and the coordinator accepted the session
  bool closing_ = false;   // CloseStream was said
  Time opened_at_{};
  Time heard_at_{};
  Time next_heartbeat_{};
  Time grant_until_;
  int64_t heartbeat_sequence_ = 0;
  bool shutting_down_ = false;
  bool shutdown_told_ = false;
  bool left_ = false;
};

}  // namespace switchyard::agent
