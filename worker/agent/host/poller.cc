#include "worker/agent/host/poller.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>

#include "common/check.h"

namespace switchyard::agent {

Poller::Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  SWITCHYARD_CHECK(epoll_.valid(), "epoll_create1 failed");
}

void Poller::Control(int operation, int fd, uint32_t events, uint32_t generation,
                     const char* problem) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = (uint64_t{generation} << 32) | static_cast<uint32_t>(fd);
  SWITCHYARD_CHECK(epoll_ctl(epoll_.get(), operation, fd, &event) == 0, problem);
}

void Poller::Add(int fd, uint32_t events, Callback callback) {
  const uint32_t generation = ++generations_;
  Control(EPOLL_CTL_ADD, fd, events, generation, "descriptor cannot be polled");
  watched_[fd] = {generation, std::move(callback)};
}

void Poller::Change(int fd, uint32_t events) {
  const auto it = watched_.find(fd);
  SWITCHYARD_CHECK(it != watched_.end(), "descriptor is not polled");
  Control(EPOLL_CTL_MOD, fd, events, it->second.generation, "descriptor is not polled");
}

void Poller::Remove(int fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watched_.erase(fd);
}

void Poller::Wait(std::optional<std::chrono::milliseconds> timeout) {
  std::array<epoll_event, 64> events;
  const int64_t limit =
      timeout.has_value() ? std::clamp<int64_t>(timeout->count(), 0, 3600000) : -1;
  const int count = epoll_wait(epoll_.get(), events.data(), events.size(), static_cast<int>(limit));
  for (int i = 0; i < count; ++i) {
    const uint64_t about = events[i].data.u64;
    const auto it = watched_.find(static_cast<int>(about & 0xFFFFFFFFu));
    // Removed by a callback of this round, which may have added another one under its number.
    if (it == watched_.end() || it->second.generation != about >> 32) continue;
    const Callback callback = it->second.callback;  // it may remove itself
    callback(events[i].events);
  }
}

}  // namespace switchyard::agent
