// JobStore in one SQLite file: WAL, synchronous=FULL, forward-only migrations, checked at start.
#pragma once

#include <memory>
#include <string>

#include "coordinator/job/job_store.h"

namespace switchyard::coordinator {

class SqliteJobStore final : public JobStore {
 public:
  // Opens or creates `path`; one of an older schema is backed up and migrated. DataLoss when its
  // integrity check fails, FailedPrecondition when a newer program wrote it or it is another
  // program's file. `program_version` is told to whoever cannot read it later.
  static absl::StatusOr<std::unique_ptr<SqliteJobStore>> Open(const std::string& path,
                                                              const std::string& program_version);
  ~SqliteJobStore() override;

  absl::StatusOr<StoreSnapshot> Load() override;
  absl::Status Commit(const WriteBatch& batch) override;
  absl::StatusOr<std::optional<RequestRecord>> FindRequest(const std::string& request_id) override;
  absl::StatusOr<std::vector<v1::Event>> ListEvents(const std::string& resource, int64_t after,
                                                    int limit) override;

 private:
  struct Impl;
  explicit SqliteJobStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::coordinator
