// The logs of all attempts on this node and how far the coordinator has them.
//
// Sends what is new in turns over the ranks, at most a window ahead of what was acknowledged, and
// again from there after a lost session. Logs wait: nothing here is buffered in memory but one
// chunk.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "worker/agent/core/types.h"
#include "worker/agent/log/log_file.h"

namespace switchyard::agent {

class LogSpool {
 public:
  // Files go to WORK_DIR/attempts/{uid}/{epoch}/rank-N.log, data preparation's to
  // data-preparation.log.
  LogSpool(std::string work_dir, int64_t cap_bytes)
      : work_dir_(std::move(work_dir)), cap_bytes_(cap_bytes) {}

  // The attempt's directory must exist.
  absl::Status Open(const ProcessKey& key);
  // Bytes that could not be kept are counted.
  void Append(const ProcessKey& key, absl::string_view bytes);
  std::vector<std::string> Tail(const ProcessKey& key) const;

  // Next run of bytes to send; counts as sent.
  std::optional<v1::LogChunk> Next();
  void OnAck(const v1::LogAck& ack);
  // Everything that was not acknowledged will be sent again.
  void OnSessionLost();
  // Every byte of the attempt was sent (not necessarily acknowledged).
  bool Sent(const AttemptKey& key) const;
  // Every byte was acknowledged.
  bool Stored(const AttemptKey& key) const;
  // Closes the attempt's files; they stay on disk.
  void Close(const AttemptKey& key);
  int64_t dropped_bytes() const { return dropped_bytes_; }

  static std::string FileName(int rank);
  static constexpr int64_t kChunkBytes = 64 << 10;
  static constexpr int64_t kWindowBytes = 512 << 10;

 private:
  struct Log {
    LogFile file;
    int64_t sent = 0;
    int64_t acked = 0;
  };

  std::string work_dir_;
  int64_t cap_bytes_;
  std::map<ProcessKey, Log> logs_;
  ProcessKey last_;  // whose turn it was
  int64_t dropped_bytes_ = 0;
};

// WORK_DIR/attempts/{uid}/{epoch}.
std::string AttemptDir(const std::string& work_dir, const AttemptKey& key);

}  // namespace switchyard::agent
