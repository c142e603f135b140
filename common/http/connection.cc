#include "common/http/connection.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace switchyard::http {
namespace {

using SteadyClock = std::chrono::steady_clock;

void NameOf(const sockaddr_storage& address, std::string& ip, int& port) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
    port = ntohs(v4.sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
    port = ntohs(v6.sin6_port);
  }
  ip = text;
}

}  // namespace

Connection::Connection(int fd, const ConnectionLimits& limits)
    : fd_(fd), limits_(limits), read_until_(SteadyClock::now() + limits.request_time) {}

bool Connection::Wait(short events, Time deadline) const {
  while (true) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
    if (left <= 0) return false;
    pollfd entry{fd_, events, 0};
    const int ready = poll(&entry, 1, static_cast<int>(left));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool Connection::is_readable() const { return begin_ < end_ || Wait(POLLIN, read_until_); }

bool Connection::is_writable() const {
  return Wait(POLLOUT, SteadyClock::now() + limits_.response_time);
}

ssize_t Connection::read(char* to, size_t size) {
  if (begin_ == end_) {
    if (received_ >= limits_.request_bytes || !Wait(POLLIN, read_until_)) return -1;
    ssize_t n = 0;
    do {
      n = recv(fd_, buffer_, sizeof buffer_, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n <= 0) return n;
    begin_ = 0;
    end_ = static_cast<size_t>(n);
    received_ += end_;
  }
  const size_t count = std::min(size, end_ - begin_);
  std::memcpy(to, buffer_ + begin_, count);
  begin_ += count;
  return static_cast<ssize_t>(count);
}

ssize_t Connection::write(const char* from, size_t size) {
  if (write_until_ == Time{}) write_until_ = SteadyClock::now() + limits_.response_time;
  while (Wait(POLLOUT, write_until_)) {
    const ssize_t n = send(fd_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) return n;
    if (errno != EINTR && errno != EAGAIN) return -1;
  }
  return -1;
}

void Connection::get_remote_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0)
    NameOf(address, ip, port);
}

void Connection::get_local_ip_and_port(std::string& ip, int& port) const {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size) == 0)
    NameOf(address, ip, port);
}

}  // namespace switchyard::http
