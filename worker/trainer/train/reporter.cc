#include "worker/trainer/train/reporter.h"

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace switchyard::trainer {
namespace {

// False when the reader is gone (main ignores SIGPIPE).
bool WriteAll(int fd, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += static_cast<size_t>(n);
  }
  return true;
}

}  // namespace

Reporter::Reporter(UniqueFd fd) : fd_(std::move(fd)), thread_([this] { Run(); }) {}

Reporter::~Reporter() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

int64_t Reporter::dropped() const {
  std::lock_guard lock(mutex_);
  return dropped_;
}

void Reporter::Enqueue(const std::string& line, bool metric) {
  {
    std::lock_guard lock(mutex_);
    if (metric && queued_metrics_ >= kMaxQueuedMetrics) {
      ++dropped_;
      return;
    }
    queued_metrics_ += metric ? 1 : 0;
    queue_.push_back({line + "\n", metric});
  }
  changed_.notify_one();
}

void Reporter::Run() {
  bool reader_is_there = fd_.valid();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !queue_.empty(); });
    if (queue_.empty()) return;
    const Entry entry = std::move(queue_.front());
    queue_.pop_front();
    queued_metrics_ -= entry.metric ? 1 : 0;
    lock.unlock();
    if (reader_is_there) reader_is_there = WriteAll(fd_.get(), entry.line);
    lock.lock();
  }
}

}  // namespace switchyard::trainer
