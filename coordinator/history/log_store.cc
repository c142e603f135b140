#include "coordinator/history/log_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/unique_fd.h"

namespace switchyard::coordinator {
namespace {

constexpr int64_t kSliceBytes = 64 << 10;

int64_t SizeOf(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? info.st_size : 0;
}

absl::Status ErrnoStatus(const std::string& what) {
  const int error = errno;
  const std::string text = absl::StrCat(what, ": ", std::strerror(error));
  return error == ENOSPC || error == EDQUOT ? absl::ResourceExhaustedError(text)
                                            : absl::InternalError(text);
}

}  // namespace

int64_t LogStore::EndOf(int64_t offset, const std::string& text) {
  return offset + std::min<int64_t>(text.size(), INT64_MAX - std::max<int64_t>(offset, 0));
}

std::string LogStore::Path(const std::string& uid, int64_t epoch, int rank) const {
  return absl::StrCat(directory_, "/", uid, "/", epoch, "/", rank, ".log");
}

absl::StatusOr<int64_t> LogStore::Append(const std::string& uid, int64_t epoch, int rank,
                                         int64_t offset, const std::string& text) {
  std::lock_guard lock(mutex_);
  if (removed_.contains(uid)) return EndOf(offset, text);
  const std::string path = Path(uid, epoch, rank);
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640));
  if (!fd.valid()) return ErrnoStatus(path);
  const int64_t size = SizeOf(fd.get());
  const int64_t end = EndOf(offset, text);
  if (end <= size || offset >= kMaxBytes) return std::max(end, size);
  // A chunk may begin inside what is stored, or leave a hole: holes read as zeros and are told as
  // gaps.
  const int64_t skip = std::max<int64_t>(0, size - offset);
  int64_t written = skip;
  while (written < static_cast<int64_t>(text.size())) {
    const ssize_t n =
        ::pwrite(fd.get(), text.data() + written, text.size() - written, offset + written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(path);
    written += n;
  }
  return end;
}

absl::StatusOr<LogSlice> LogStore::Read(const std::string& uid, int64_t epoch, int rank,
                                        int64_t offset, bool complete) const {
  const std::string path = Path(uid, epoch, rank);
  LogSlice slice;
  slice.offset = offset;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return errno == ENOENT ? absl::StatusOr<LogSlice>(slice) : ErrnoStatus(path);
  std::string text(kSliceBytes, '\0');
  while (true) {
    const ssize_t n = ::pread(fd.get(), text.data(), kSliceBytes, slice.offset);
    if (n < 0) return ErrnoStatus(path);
    const size_t first = text.find_first_not_of('\0');
    if (n > 0 && (first == std::string::npos || first >= static_cast<size_t>(n))) {
      slice.offset += n;
      slice.gap_before = true;
      continue;
    }
    text.resize(n);
    if (n > 0 && first > 0) {
      slice.gap_before = true;
      slice.offset += static_cast<int64_t>(first);
      text.erase(0, first);
    }
    break;
  }
  text = text.substr(0, text.find('\0'));
  const size_t newline = text.rfind('\n');
  if (newline != std::string::npos) {
    text.resize(newline + 1);
  } else if (!complete && static_cast<int64_t>(text.size()) < kSliceBytes / 2) {
    text.clear();
  }
  slice.text = std::move(text);
  return slice;
}

std::vector<int> LogStore::Ranks(const std::string& uid, int64_t epoch) const {
  std::vector<int> ranks;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(absl::StrCat(directory_, "/", uid, "/", epoch), error)) {
    ranks.push_back(std::atoi(entry.path().stem().c_str()));
  }
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

int64_t LogStore::TailOffset(const std::string& uid, int64_t epoch, int rank, int lines) const {
  const UniqueFd fd(::open(Path(uid, epoch, rank).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return 0;
  int64_t end = SizeOf(fd.get());
  int newlines = 0;
  std::string text(kSliceBytes, '\0');
  while (end > 0) {
    const int64_t begin = std::max<int64_t>(0, end - kSliceBytes);
    const ssize_t n = ::pread(fd.get(), text.data(), end - begin, begin);
    if (n <= 0) return 0;
    for (ssize_t i = n - 1; i >= 0; --i) {
      if (text[i] == '\n' && ++newlines > lines) return begin + i + 1;
    }
    end = begin;
  }
  return 0;
}

void LogStore::Remove(const std::string& uid) {
  std::lock_guard lock(mutex_);
  removed_.insert(uid);
  std::error_code error;
  std::filesystem::remove_all(absl::StrCat(directory_, "/", uid), error);
}

void LogStore::RemoveAllBut(const std::set<std::string>& uids) {
  std::lock_guard lock(mutex_);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    std::error_code ignored;
    if (!entry.is_directory(ignored) || uids.contains(entry.path().filename())) continue;
    std::filesystem::remove_all(entry.path(), ignored);
  }
}

}  // namespace switchyard::coordinator
