#include "common/service_notifier.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>

namespace switchyard {
namespace {

// The socket of `path`, where "@name" is one without a file; invalid when nobody listens there.
UniqueFd ConnectTo(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() < 2 || path.size() >= sizeof(address.sun_path)) return UniqueFd();
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (!fd.valid() || ::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) {
    return UniqueFd();
  }
  const timeval patience{2, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return fd;
}

}  // namespace

ServiceNotifier::ServiceNotifier() {
  const char* path = std::getenv("NOTIFY_SOCKET");
  const char* period = std::getenv("WATCHDOG_USEC");
  const char* pid = std::getenv("WATCHDOG_PID");
  if (path != nullptr) socket_ = ConnectTo(path);
  // WATCHDOG_PID names another process when the variables were inherited through a wrapper.
  const bool for_us = pid == nullptr || std::atoll(pid) == getpid();
  if (socket_.valid() && period != nullptr && for_us && std::atoll(period) > 0) {
    alive_interval_ = std::chrono::ceil<std::chrono::milliseconds>(
        std::chrono::microseconds(std::atoll(period) / 2));
  }
  for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) unsetenv(name);
}

void ServiceNotifier::Send(const std::string& text, bool wait) {
  if (!socket_.valid()) return;
  [[maybe_unused]] const ssize_t sent =
      ::send(socket_.get(), text.data(), text.size(), (wait ? 0 : MSG_DONTWAIT) | MSG_NOSIGNAL);
}

}  // namespace switchyard
