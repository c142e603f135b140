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
  struct Watched {
    uint32_t generation = 0;  // tells a descriptor from an earlier one of the same number
    Callback callback;
  };
  void Control(int operation, int fd, uint32_t events, uint32_t generation, const char* problem);

  UniqueFd epoll_;
  uint32_t generations_ = 0;
  std::map<int, Watched> watched_;
};

}  // namespace switchyard::agent
