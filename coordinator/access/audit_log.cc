#include "coordinator/access/audit_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {
namespace {

constexpr size_t kMaxText = 512;  // of one field; a hostile name makes no long line

std::string Line(const AuditEntry& entry) {
  using Json = nlohmann::ordered_json;
  Json line{{"time", absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", entry.time, absl::UTCTimeZone())}};
  const auto add = [&](const char* key, const std::string& text) {
    if (!text.empty()) line[key] = text.substr(0, kMaxText);
  };
  add("caller", entry.caller_id);
  add("caller_name", entry.caller_name);
  add("peer", entry.peer);
  add("method", entry.method);
  add("resource", entry.resource);
  add("trace_id", entry.trace_id);
  add("request_sha256", entry.request_sha256);
  add("result", entry.result);
  add("message", entry.message);
  return line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

absl::StatusOr<std::unique_ptr<AuditLog>> AuditLog::Open(const std::string& path,
                                                         const Options& options) {
  std::unique_ptr<AuditLog> log(new AuditLog(path, options));
  absl::MutexLock lock(&log->mutex_);
  SWITCHYARD_RETURN_IF_ERROR(log->OpenFile());
  return log;
}

absl::Status AuditLog::OpenFile() {
  file_.Reset(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (!file_.valid()) return FileError(errno, "open", path_);
  SWITCHYARD_ASSIGN_OR_RETURN(size_, FileSize(file_.get(), path_));
  return absl::OkStatus();
}

void AuditLog::Rotate() {
  for (int i = options_.kept_files; i > 0; --i) {
    const std::string from = i == 1 ? path_ : absl::StrCat(path_, ".", i - 1);
    std::rename(from.c_str(), absl::StrCat(path_, ".", i).c_str());
  }
  if (const absl::Status status = OpenFile(); !status.ok())
    log::Error("audit.not_rotated", {{"error", std::string(status.message())}});
}

void AuditLog::Write(const AuditEntry& entry) {
  const std::string line = Line(entry);
  absl::MutexLock lock(&mutex_);
  if (size_ > 0 && size_ + static_cast<int64_t>(line.size()) > options_.max_file_bytes) Rotate();
  const ssize_t written = ::write(file_.get(), line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) {
    size_ += written;
  } else {
    log::Error("audit.not_written", {{"error", std::strerror(errno)}, {"entry", line}});
  }
}

}  // namespace switchyard::coordinator
