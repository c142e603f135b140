// Who did what, with what result: JSON lines in files that are rotated by size.
//
// Thread-safe. Holds no request bodies and no tokens, only a token's id.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/unique_fd.h"

namespace switchyard::coordinator {

struct AuditEntry {
  absl::Time time;
  std::string caller_id;  // a token's id, "agent:NODE", "local", or empty: not known
  std::string caller_name;
  std::string peer;  // address
  std::string method;
  std::string resource;
  std::string trace_id;        // empty for a page
  std::string request_sha256;  // of the request's bytes; empty for a stream of them
  std::string result;          // "OK" or the code of the refusal or failure
  std::string message;         // why not
};

class AuditLog {
 public:
  struct Options {
    int64_t max_file_bytes = 16 << 20;
    int kept_files = 8;  // besides the current one: PATH.1 is the newest
  };
  // Appends to `path`, mode 0600.
  static absl::StatusOr<std::unique_ptr<AuditLog>> Open(const std::string& path,
                                                        const Options& options);

  // One line, in the file when it returns. A full disk is told in the program's own log.
  void Write(const AuditEntry& entry);

 private:
  AuditLog(std::string path, const Options& options) : path_(std::move(path)), options_(options) {}

  absl::Status OpenFile() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Rotate() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string path_;
  const Options options_;
  absl::Mutex mutex_;
  UniqueFd file_ ABSL_GUARDED_BY(mutex_);
  int64_t size_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::coordinator
