#include "worker/agent/log/log_spool.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace switchyard::agent {
namespace {

constexpr int kTailLines = 20;
constexpr size_t kTailLineBytes = 400;

}  // namespace

std::string AttemptDir(const std::string& work_dir, const AttemptKey& key) {
  return absl::StrCat(work_dir, "/attempts/", key.job_uid, "/", key.epoch);
}

std::string LogSpool::FileName(int rank) {
  return rank == kPreparationRank ? "data-preparation.log" : absl::StrCat("rank-", rank, ".log");
}

absl::Status LogSpool::Open(const ProcessKey& key) {
  if (logs_.contains(key)) return absl::OkStatus();
  auto file = LogFile::Open(
      absl::StrCat(AttemptDir(work_dir_, key.attempt), "/", FileName(key.rank)), cap_bytes_);
  if (!file.ok()) return file.status();
  logs_.emplace(key, Log{*std::move(file)});
  return absl::OkStatus();
}

void LogSpool::Append(const ProcessKey& key, absl::string_view bytes) {
  const auto it = logs_.find(key);
  if (it == logs_.end()) return;
  const int64_t before = it->second.file.end();
  if (!it->second.file.Append(bytes)) {
    dropped_bytes_ += static_cast<int64_t>(bytes.size()) - (it->second.file.end() - before);
  }
}

std::vector<std::string> LogSpool::Tail(const ProcessKey& key) const {
  const auto it = logs_.find(key);
  if (it == logs_.end()) return {};
  return it->second.file.Tail(kTailLines, kTailLineBytes);
}

std::optional<v1::LogChunk> LogSpool::Next() {
  auto it = logs_.upper_bound(last_);
  for (size_t tried = 0; tried < logs_.size(); ++tried, ++it) {
    if (it == logs_.end()) it = logs_.begin();
    Log& log = it->second;
    log.sent = std::max(log.sent, log.file.begin());  // rotated away before it was sent
    if (log.sent >= log.file.end() || log.sent - log.acked >= kWindowBytes) continue;
    v1::LogChunk chunk;
    chunk.set_text(log.file.Read(log.sent, kChunkBytes));
    if (chunk.text().empty()) continue;
    chunk.set_job_uid(it->first.attempt.job_uid);
    chunk.set_epoch(it->first.attempt.epoch);
    chunk.set_rank(it->first.rank);
    chunk.set_offset(log.sent);
    log.sent += static_cast<int64_t>(chunk.text().size());
    last_ = it->first;
    return chunk;
  }
  return std::nullopt;
}

void LogSpool::OnAck(const v1::LogAck& ack) {
  const auto it = logs_.find({{ack.job_uid(), ack.epoch()}, ack.rank()});
  if (it == logs_.end()) return;
  Log& log = it->second;
  log.acked = std::clamp<int64_t>(ack.offset(), log.acked, log.file.end());
  log.sent = std::max(log.sent, log.acked);  // an earlier incarnation may have sent more
}

void LogSpool::OnSessionLost() {
  for (auto& [key, log] : logs_) log.sent = log.acked;
}

bool LogSpool::Sent(const AttemptKey& key) const {
  return std::all_of(logs_.begin(), logs_.end(), [&](const auto& item) {
    return item.first.attempt != key || item.second.sent >= item.second.file.end();
  });
}

bool LogSpool::Stored(const AttemptKey& key) const {
  return std::all_of(logs_.begin(), logs_.end(), [&](const auto& item) {
    return item.first.attempt != key || item.second.acked >= item.second.file.end();
  });
}

void LogSpool::Close(const AttemptKey& key) {
  std::erase_if(logs_, [&](const auto& item) { return item.first.attempt == key; });
}

}  // namespace switchyard::agent
