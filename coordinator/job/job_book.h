// The writer's view of all jobs: what is stored, what changed since, and what is only known live.
//
// Changes collect until Commit, which writes them with their events in one transaction. When that
// fails, memory goes back to what is stored, as after a restart. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/clock.h"
#include "coordinator/job/job_store.h"

namespace switchyard::coordinator {

// When something was last sent to which session, so that level-triggered messages are not sent each
// step.
struct Sent {
  uint64_t session = 0;
  Clock::SteadyTime time;
};

// How long a running attempt has given no sign of progress (reconcile/hang_detector.h).
struct Silence {
  Clock::SteadyTime looked;
  std::chrono::milliseconds time{0};
  v1::JobPhase phase = v1::JOB_PHASE_UNSPECIFIED;
  int64_t step = -1;
  int64_t changes = 0;
  double slowest_step = 0;            // of this attempt, seconds
  std::map<int, int64_t> rank_steps;  // newest step that each rank reported
};

// What is known of a job only while the coordinator runs; lost with it and learned again from the
// agents.
struct LiveJob {
  v1::Progress progress;
  v1::JobPhase phase = v1::JOB_PHASE_UNSPECIFIED;
  int queue_position = 0;
  bool changed = false;  // progress, phase or position differs from what was published
  Clock::SteadyTime last_published;
  Clock::SteadyTime not_before;  // back-off
  Clock::SteadyTime running_since;
  Clock::SteadyTime start_sent;      // StartRanks; the launch's time limit counts from it
  Clock::SteadyTime allocation_ran;  // first seen running without all of its agents
  Clock::SteadyTime reason_awaited;  // from the cluster, of an attempt that it ended
  int64_t epoch = 0;                 // that `sent` and `probes` belong to
  std::map<std::string, Sent> sent;  // by message kind and node
  std::map<std::string, agent::v1::ProbeResult> probes;  // by node
  bool checkpoint_requested = false;                     // CreateCheckpoint
  Silence silence;
};

struct Committed {
  std::vector<ChangeRecord> changes;
  std::vector<v1::Event> events;
  std::vector<store::v1::CheckpointRecord> checkpoints;
  std::vector<std::string> removed_nodes;  // resource names
};

class JobBook {
 public:
  JobBook(JobStore& store, const Clock& clock) : store_(store), clock_(clock) {}

  // Reads everything from the store; drops uncommitted changes. The snapshot's history is left in
  // `snapshot`.
  absl::Status Load(StoreSnapshot* snapshot);

  const std::string& store_id() const { return store_id_; }
  const std::map<std::string, store::v1::JobRecord>& jobs() const { return jobs_; }  // by uid
  const store::v1::JobRecord* Find(const std::string& uid) const;
  const store::v1::JobRecord* FindByName(const std::string& name) const;
  LiveJob& live(const std::string& uid) { return live_[uid]; }

  // The record to change; it is written by the next Commit.
  store::v1::JobRecord& Edit(const std::string& uid);
  store::v1::JobRecord& Add(const store::v1::JobRecord& record);
  void Remove(const std::string& uid);
  // Moves a job along the state table, sets its reason, and writes the event.
  void Move(const std::string& uid, v1::JobState to, const v1::StateReason& reason,
            const std::string& event_type, v1::EventSeverity severity = v1::EVENT_SEVERITY_INFO);
  void AddEvent(const std::string& resource, int64_t epoch, const std::string& type,
                v1::EventSeverity severity, const std::string& message);
  // The job of a request that is not committed yet; empty when there is none. `hash` as given then.
  std::string PendingRequest(const std::string& request_id, std::string* hash) const;
  // Stores the job `uid`, as the same Commit leaves it, as the answer to a request.
  void AddRequest(const std::string& request_id, const std::string& hash, const std::string& uid);

  // Checkpoints of a job by name.
  const std::map<std::string, store::v1::CheckpointRecord>& checkpoints(
      const std::string& uid) const;
  void PutCheckpoint(const store::v1::CheckpointRecord& record);

  const std::map<std::string, store::v1::NodeRecord>& nodes() const { return nodes_; }
  void PutNode(const store::v1::NodeRecord& record);
  // "nodes/{node}", and its events. Taken back by a PutNode before the next Commit.
  void RemoveNode(const std::string& name);

  bool dirty() const;
  absl::StatusOr<Committed> Commit();
  // The job as users see it now.
  v1::Job View(const store::v1::JobRecord& record) const;
  int64_t last_sequence() const { return sequence_; }
  // A number for create_sequence; growing.
  int64_t NextSequence() { return ++sequence_; }
  JobStore& store() { return store_; }

 private:
  JobStore& store_;
  const Clock& clock_;
  std::string store_id_;
  int64_t sequence_ = 0;
  std::map<std::string, store::v1::JobRecord> jobs_;
  std::map<std::string, std::string> uid_by_name_;
  std::map<std::string, std::map<std::string, store::v1::CheckpointRecord>> checkpoints_;
  std::map<std::string, store::v1::NodeRecord> nodes_;
  std::map<std::string, LiveJob> live_;
  std::set<std::string> dirty_;  // uids
  std::set<std::pair<std::string, std::string>> dirty_checkpoints_;
  std::set<std::string> dirty_nodes_;
  std::set<std::string> removed_nodes_;
  std::vector<std::pair<std::string, std::string>> removed_;     // uid, name
  std::vector<std::pair<RequestRecord, std::string>> requests_;  // and uid
  WriteBatch batch_;
};

}  // namespace switchyard::coordinator
