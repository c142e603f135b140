// JobStore in memory, for simulations; keeps its content across coordinators, fails on command.
#pragma once

#include <map>

#include "coordinator/job/job_store.h"

namespace switchyard::coordinator {

class MemoryJobStore final : public JobStore {
 public:
  absl::StatusOr<StoreSnapshot> Load() override;
  absl::Status Commit(const WriteBatch& batch) override;
  absl::StatusOr<std::optional<RequestRecord>> FindRequest(const std::string& request_id) override;
  absl::StatusOr<std::vector<v1::Event>> ListEvents(const std::string& resource, int64_t after,
                                                    int limit) override;

  // The next `count` commits fail as on a full disk.
  void FailCommits(int count) { failing_commits_ = count; }
  const std::vector<v1::Event>& events() const { return events_; }

 private:
  int failing_commits_ = 0;
  int64_t last_sequence_ = 0;
  std::map<std::string, store::v1::JobRecord> jobs_;                // by uid
  std::map<std::string, store::v1::CheckpointRecord> checkpoints_;  // by job uid and name
  std::map<std::string, store::v1::NodeRecord> nodes_;
  std::vector<v1::Event> events_;
  std::vector<ChangeRecord> changes_;
  std::map<std::string, RequestRecord> requests_;
};

}  // namespace switchyard::coordinator
