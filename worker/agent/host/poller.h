// epoll with a callback a descriptor; one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "common/unique_fd.h"

namespace switchyard::agent {

class Poller {
 public:
  using Callback = std::function<void(uint32_t events)>;

  Poller();
  // Level-triggered. A callback may come without cause, so it must expect EAGAIN.
  void Add(int fd, uint32_t events, Callback callback);
  void Change(int fd, uint32_t events);
  // Before the descriptor is closed.
  void Remove(int fd);
  // Waits until something happens or `timeout` is over (none: for ever), then calls back.
  void Wait(std::optional<std::chrono::milliseconds> timeout);

 private:
  UniqueFd epoll_;
  std::map<int, Callback> callbacks_;
};

}  // namespace switchyard::agent
