// Nodes whose certificates are not accepted any more: a small JSON file beside the authority.
//
// A node is revoked as of a time: certificates issued before are refused, a new one is good. Read
// anew whenever the file changes.
#pragma once

#include <sys/stat.h>

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace switchyard::security {

class RevokedNodes {
 public:
  explicit RevokedNodes(std::string path) : path_(std::move(path)) {}

  // PermissionDenied with the way out when a certificate of `node` that is good from `not_before`
  // was issued before the node was revoked; DataLoss when the file cannot be read: then nobody is
  // let in.
  absl::Status Check(const std::string& node, absl::Time not_before);
  // Waits into the next second, so that a certificate issued after this returned is good.
  static absl::Status Revoke(const std::string& path, const std::string& node, absl::Time now);

 private:
  const std::string path_;
  absl::Mutex mutex_;
  struct stat seen_ ABSL_GUARDED_BY(mutex_) {};
  std::map<std::string, absl::Time> revoked_ ABSL_GUARDED_BY(mutex_);  // by node
};

}  // namespace switchyard::security
