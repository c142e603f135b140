// Durable memory of the coordinator: jobs, checkpoints, nodes, history, request ids.
//
// One caller thread for Commit and Load. Knows nothing of what records mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "switchyard/store/v1/record.pb.h"
#include "switchyard/v1/event.pb.h"

namespace switchyard::coordinator {

// A stored answer to CreateJob.
struct RequestRecord {
  std::string request_id;
  std::string request_hash;  // of the request without its id
  std::string response;      // serialized v1::Job
};

// One entry of the history that WatchJobs replays: a job as it was after a change, or its end.
struct ChangeRecord {
  int64_t revision = 0;
  std::string name;            // resource name
  std::optional<v1::Job> job;  // unset: deleted
};

// All or nothing.
struct WriteBatch {
  std::vector<store::v1::JobRecord> put_jobs;
  std::vector<std::string> delete_jobs;  // uids; their checkpoints and events go too
  std::vector<store::v1::CheckpointRecord> put_checkpoints;
  std::vector<store::v1::NodeRecord> put_nodes;
  std::vector<std::string> delete_nodes;  // resource names; their events go too
  std::vector<v1::Event> events;          // sequence set by the caller, growing
  std::vector<ChangeRecord> changes;      // revisions share the events' numbers
  std::vector<RequestRecord> requests;

  bool empty() const {
    return put_jobs.empty() && delete_jobs.empty() && put_checkpoints.empty() &&
           put_nodes.empty() && delete_nodes.empty() && events.empty() && changes.empty() &&
           requests.empty();
  }
};

struct StoreSnapshot {
  std::string store_id;       // made when the store was created
  int64_t last_sequence = 0;  // highest event or change number ever written
  std::vector<store::v1::JobRecord> jobs;
  std::vector<store::v1::CheckpointRecord> checkpoints;
  std::vector<store::v1::NodeRecord> nodes;
  std::vector<ChangeRecord> changes;  // the newest kKeptChanges, oldest first
  std::vector<v1::Event> events;      // those that belong to `changes`, oldest first
};

class JobStore {
 public:
  static constexpr int kKeptChanges = 4096;

  virtual ~JobStore() = default;
  virtual absl::StatusOr<StoreSnapshot> Load() = 0;
  // Durable when it returns OK; otherwise nothing of the batch is stored. ResourceExhausted when
  // the disk is full.
  virtual absl::Status Commit(const WriteBatch& batch) = 0;
  virtual absl::StatusOr<std::optional<RequestRecord>> FindRequest(
      const std::string& request_id) = 0;
  // Events of `resource` with a sequence above `after`, oldest first, at most `limit`. Any thread.
  virtual absl::StatusOr<std::vector<v1::Event>> ListEvents(const std::string& resource,
                                                            int64_t after, int limit) = 0;
};

}  // namespace switchyard::coordinator
