#include "worker/trainer/train/control_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/check.h"
#include "worker/trainer/train/exit_code.h"
#include "worker/trainer/train/lines.h"

namespace switchyard::trainer {

ControlReader::ControlReader(UniqueFd fd) : fd_(std::move(fd)) {
  if (!fd_.valid()) return;
  int ends[2];
  SWITCHYARD_CHECK(pipe2(ends, O_CLOEXEC) == 0, "pipe");
  wake_read_.Reset(ends[0]);
  wake_write_.Reset(ends[1]);
  thread_ = std::thread([this] { Run(); });
}

ControlReader::~ControlReader() {
  wake_write_.Reset();
  if (thread_.joinable()) thread_.join();
}

void ControlReader::Run() {
  std::string pending;
  char buffer[4096];
  while (true) {
    pollfd polls[2] = {{fd_.get(), POLLIN, 0}, {wake_read_.get(), POLLIN, 0}};
    if (poll(polls, 2, -1) < 0 && errno != EINTR) _exit(kAgentGoneExitCode);
    if (polls[1].revents != 0) return;
    if (polls[0].revents == 0) continue;
    const ssize_t n = ::read(fd_.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(kAgentGoneExitCode);
    pending.append(buffer, static_cast<size_t>(n));
    for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      Take(pending.substr(0, end));
      pending.erase(0, end + 1);
    }
  }
}

void ControlReader::Take(const std::string& text) {
  const AgentLine line = ParseAgentLine(text);
  {
    std::lock_guard lock(mutex_);
    if (line.rendezvous_id) rendezvous_ = line.rendezvous_id;
    requests_.checkpoint |= line.checkpoint_now;
    requests_.stop |= line.stop || line.then_stop;
    if (line.stop) stop_reason_ = line.stop_reason;
  }
  changed_.notify_all();
}

std::optional<std::string> ControlReader::WaitForRendezvous(std::chrono::milliseconds limit) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, limit, [this] { return rendezvous_.has_value(); });
  return rendezvous_;
}

Requests ControlReader::requests() const {
  std::lock_guard lock(mutex_);
  return requests_;
}

void ControlReader::Done(const Requests& requests) {
  std::lock_guard lock(mutex_);
  requests_.checkpoint = requests_.checkpoint && !requests.checkpoint;
  requests_.stop = requests_.stop && !requests.stop;
}

std::string ControlReader::stop_reason() const {
  std::lock_guard lock(mutex_);
  return stop_reason_;
}

}  // namespace switchyard::trainer
