// Log lines of jobs' ranks as files: DIR/{uid}/{epoch}/{rank}.log, bytes at the offsets they had on
// the node.
//
// Thread-safe. Knows nothing of jobs; callers give it only uids that exist.
#pragma once

#include <cstdint>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard::coordinator {

// Part of a log. Bytes between the end of one chunk and the offset of the next were never captured.
struct LogSlice {
  int64_t offset = 0;
  std::string text;
  bool gap_before = false;
};

class LogStore {
 public:
  // A rank's log takes at most so many bytes; what comes later is dropped.
  static constexpr int64_t kMaxBytes = int64_t{256} << 20;

  explicit LogStore(std::string directory) : directory_(std::move(directory)) {}

  // Where `text` at `offset` ends; offsets come from other machines, so any value is taken.
  static int64_t EndOf(int64_t offset, const std::string& text);
  // Writes `text` at `offset`; returns the offset before which everything is stored or given up. A
  // repeated chunk changes nothing. ResourceExhausted when the disk is full: the sender keeps it
  // and tries again.
  absl::StatusOr<int64_t> Append(const std::string& uid, int64_t epoch, int rank, int64_t offset,
                                 const std::string& text);
  // At most 64 KiB from `offset`; empty at the end. Ends with a whole line, unless a line is longer
  // than half of that or the log is `complete`: then its last line counts as whole.
  absl::StatusOr<LogSlice> Read(const std::string& uid, int64_t epoch, int rank, int64_t offset,
                                bool complete) const;
  // Ranks with a log of that attempt, -1 (data preparation) included.
  std::vector<int> Ranks(const std::string& uid, int64_t epoch) const;
  // Offset of the first of the last `lines` lines.
  int64_t TailOffset(const std::string& uid, int64_t epoch, int rank, int lines) const;
  // Of a job that is gone: chunks that are still on their way are given up.
  void Remove(const std::string& uid);
  // At start: removes logs of jobs that are not in the store, which a crash has left behind.
  void RemoveAllBut(const std::set<std::string>& uids);

 private:
  std::string Path(const std::string& uid, int64_t epoch, int rank) const;

  std::string directory_;
  std::mutex mutex_;
  std::set<std::string> removed_;  // uids; a few bytes each, until the next start
};

}  // namespace switchyard::coordinator
