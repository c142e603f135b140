// Results of attempts that the coordinator has not acknowledged yet, one small file each, and whose
// they are.
//
// A result survives SIGKILL of the agent and loss of power once Write has returned: written to a
// temporary name, fsynced, renamed, directory fsynced.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "switchyard/agent/v1/agent.pb.h"
#include "worker/agent/core/types.h"

namespace switchyard::agent {

class Journal {
 public:
  // Creates DIR when missing.
  static absl::StatusOr<Journal> Open(const std::string& dir);

  absl::Status Write(const v1::AttemptStatus& result);
  // Missing is fine.
  void Remove(const AttemptKey& key);
  // All results. A file that cannot be read is renamed to *.corrupt and logged: it must not keep
  // the agent down.
  std::vector<v1::AttemptStatus> Load() const;

  // Store that the results are for; empty before the first.
  std::string StoreId() const;
  absl::Status SetStoreId(const std::string& store_id);

 private:
  explicit Journal(std::string dir) : dir_(std::move(dir)) {}
  std::string Path(const AttemptKey& key) const;

  std::string dir_;
};

// Writes `bytes` to PATH so that either the old or the new content is there after a crash.
absl::Status ReplaceFile(const std::string& path, const std::string& bytes);

}  // namespace switchyard::agent
