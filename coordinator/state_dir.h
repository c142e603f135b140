// The coordinator's directory: created, checked for writing, locked against a second coordinator.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"

namespace switchyard::coordinator {

class StateDir {
 public:
  // PermissionDenied when it cannot be created, written or locked, Unavailable when another
  // coordinator holds it.
  static absl::StatusOr<StateDir> Open(const std::string& path);

  const std::string& path() const { return path_; }
  std::string database() const { return path_ + "/state.db"; }
  std::string metrics_database() const { return path_ + "/metrics.db"; }
  std::string logs() const { return path_ + "/logs"; }
  // Writes `text` to the file `name` by one rename; for scripts and tests that wait for it.
  absl::Status WriteFile(const std::string& name, const std::string& text) const;

 private:
  StateDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  UniqueFd lock_;  // common/file_lock.h
};

}  // namespace switchyard::coordinator
