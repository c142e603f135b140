#include "worker/agent/log/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/utf8.h"

namespace switchyard::agent {
namespace {

constexpr int64_t kTailBytes = 32 << 10;

absl::StatusOr<UniqueFd> OpenForAppend(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
  if (!fd.valid())
    return absl::InternalError(
        absl::StrCat("cannot write the log ", path, ": ", std::strerror(errno)));
  return fd;
}

}  // namespace

absl::StatusOr<LogFile> LogFile::Open(const std::string& path, int64_t cap_bytes) {
  LogFile log(path, cap_bytes);
  auto fd = OpenForAppend(path);
  if (!fd.ok()) return fd.status();
  log.fd_ = *std::move(fd);
  struct stat stat {};
  if (fstat(log.fd_.get(), &stat) == 0) log.size_ = stat.st_size;
  return log;
}

bool LogFile::Append(absl::string_view bytes) {
  while (!bytes.empty()) {
    if (size_ >= cap_bytes_) Rotate();
    const size_t room = static_cast<size_t>(std::max<int64_t>(cap_bytes_ - size_, 1));
    const ssize_t count = write(fd_.get(), bytes.data(), std::min(bytes.size(), room));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    size_ += count;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

void LogFile::Rotate() {
  // When the new part cannot be made, the old one grows on: losing the cap is better than losing
  // the log.
  if (std::rename(path_.c_str(), absl::StrCat(path_, ".1").c_str()) != 0) return;
  auto fresh = OpenForAppend(path_);
  if (!fresh.ok()) return;
  previous_base_ = base_;
  base_ += size_;
  size_ = 0;
  previous_ = std::move(fd_);
  fd_ = *std::move(fresh);
}

std::string LogFile::Read(int64_t offset, int64_t limit) const {
  const bool old = offset < base_;
  const int fd = old ? previous_.get() : fd_.get();
  const int64_t first = old ? previous_base_ : base_;
  const int64_t last = old ? base_ : end();
  const int64_t wanted = std::min(limit, last - offset);
  if (wanted <= 0 || offset < first) return "";
  std::string bytes(static_cast<size_t>(wanted), '\0');
  const ssize_t count = pread(fd, bytes.data(), bytes.size(), offset - first);
  bytes.resize(static_cast<size_t>(std::max<ssize_t>(count, 0)));
  return bytes;
}

std::vector<std::string> LogFile::Tail(int count, size_t max_bytes) const {
  const int64_t from = std::max(begin(), end() - kTailBytes);
  std::string text = from < base_ ? Read(from, base_ - from) : "";
  text += Read(std::max(from, base_), kTailBytes);
  std::vector<std::string> lines = absl::StrSplit(text, '\n', absl::SkipEmpty());
  if (lines.size() > static_cast<size_t>(count)) lines.erase(lines.begin(), lines.end() - count);
  for (auto& line : lines) {
    if (line.size() > max_bytes) line.resize(max_bytes);
    line = ToUtf8(line);  // after the cut, which may have hit a character
  }
  return lines;
}

}  // namespace switchyard::agent
