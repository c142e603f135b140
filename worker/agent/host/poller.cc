#include "worker/agent/host/poller.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>

#include "common/check.h"

namespace switchyard::agent {

Poller::Poller() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  SWITCHYARD_CHECK(epoll_.valid(), "epoll_create1 failed");
}

void Poller::Add(int fd, uint32_t events, Callback callback) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  SWITCHYARD_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0,
                   "descriptor cannot be polled");
  callbacks_[fd] = std::move(callback);
}

void Poller::Change(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = fd;
  SWITCHYARD_CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) == 0,
                   "descriptor is not polled");
}

void Poller::Remove(int fd) {
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  callbacks_.erase(fd);
}

void Poller::Wait(std::optional<std::chrono::milliseconds> timeout) {
  std::array<epoll_event, 64> events;
  const int64_t limit =
      timeout.has_value() ? std::clamp<int64_t>(timeout->count(), 0, 3600000) : -1;
  const int count = epoll_wait(epoll_.get(), events.data(), events.size(), static_cast<int>(limit));
  for (int i = 0; i < count; ++i) {
    const auto it = callbacks_.find(events[i].data.fd);
    if (it == callbacks_.end()) continue;  // removed by a callback of this round
    const Callback callback = it->second;  // it may remove itself
    callback(events[i].events);
  }
}

}  // namespace switchyard::agent
