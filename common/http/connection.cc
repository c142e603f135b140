#include "common/http/connection.h"

#include <arpa/inet.h>
#include <openssl/err.h>
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

Connection::Connection(int fd, const ConnectionLimits& limits, SslPtr ssl)
    : fd_(fd),
      limits_(limits),
      ssl_(std::move(ssl)),
      read_until_(SteadyClock::now() + limits.request_time) {}

Connection::~Connection() {
  // Not after an error: OpenSSL forbids it.
  if (ssl_ != nullptr && !broken_ && SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
  ERR_clear_error();
}

ssize_t Connection::TlsResult(int result, short& wait_for) {
  if (result > 0) return result;
  const int error = SSL_get_error(ssl_.get(), result);
  ERR_clear_error();
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  wait_for = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return -2;
  broken_ = true;
  return -1;
}

ssize_t Connection::Receive(char* to, size_t size, short& wait_for) {
  if (ssl_ != nullptr) return TlsResult(SSL_read(ssl_.get(), to, static_cast<int>(size)), wait_for);
  const ssize_t n = recv(fd_, to, size, MSG_DONTWAIT);
  wait_for = POLLIN;
  return n < 0 && (errno == EINTR || errno == EAGAIN) ? -2 : n;
}

ssize_t Connection::Transmit(const char* from, size_t size, short& wait_for) {
  if (ssl_ != nullptr)
    return TlsResult(SSL_write(ssl_.get(), from, static_cast<int>(std::min<size_t>(size, 1 << 20))),
                     wait_for);
  const ssize_t n = send(fd_, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  wait_for = POLLOUT;
  return n < 0 && (errno == EINTR || errno == EAGAIN) ? -2 : n;
}

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

bool Connection::is_readable() const {
  return begin_ < end_ || (ssl_ != nullptr && SSL_pending(ssl_.get()) > 0) ||
         Wait(POLLIN, read_until_);
}

bool Connection::is_writable() const {
  return Wait(POLLOUT, SteadyClock::now() + limits_.response_time);
}

ssize_t Connection::read(char* to, size_t size) {
  if (begin_ == end_) {
    if (received_ >= limits_.request_bytes) return -1;
    ssize_t n = 0;
    short wait_for = POLLIN;
    while ((n = Receive(buffer_, sizeof buffer_, wait_for)) == -2) {
      if (!Wait(wait_for, read_until_)) return -1;
    }
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
  short wait_for = POLLOUT;
  while (true) {
    const ssize_t n = Transmit(from, size, wait_for);
    if (n != -2) return n;
    if (!Wait(wait_for, write_until_)) return -1;
  }
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
