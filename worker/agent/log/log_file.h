// One rank's log on disk: appended raw, rotated at a cap, read back by its offset in the whole log.
//
// The newest part is PATH, the one before it PATH.1; older bytes are gone, offsets go on. Failing
// to write (disk full) drops bytes, never the process that wrote them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/unique_fd.h"

namespace switchyard::agent {

class LogFile {
 public:
  // Continues an existing file (its bytes keep their offsets as long as it was never rotated).
  static absl::StatusOr<LogFile> Open(const std::string& path, int64_t cap_bytes);

  // False when bytes were dropped; the offset does not advance for them.
  bool Append(absl::string_view bytes);
  // Offset after the last byte.
  int64_t end() const { return base_ + size_; }
  // Oldest offset that can still be read.
  int64_t begin() const { return previous_base_; }
  // At most `limit` bytes from `offset`, which must lie in [begin, end]; fewer at a part's end.
  std::string Read(int64_t offset, int64_t limit) const;
  // Last `count` lines, each cut to `max_bytes`.
  std::vector<std::string> Tail(int count, size_t max_bytes) const;

 private:
  LogFile(std::string path, int64_t cap_bytes) : path_(std::move(path)), cap_bytes_(cap_bytes) {}
  void Rotate();

  std::string path_;
  int64_t cap_bytes_;
  UniqueFd fd_;
  UniqueFd previous_;
  int64_t base_ = 0;           // offset of the first byte of fd_
  int64_t size_ = 0;           // bytes in fd_
  int64_t previous_base_ = 0;  // offset of the first byte of previous_, or base_ without one
};

}  // namespace switchyard::agent
