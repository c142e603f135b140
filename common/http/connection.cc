#include "common/http/connection.h"

#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace switchyard::http {
namespace {

constexpr ssize_t kWouldWait = -2;
constexpr char kHeadEnd[] = "\r\n\r\n";

}  // namespace

Connection::Connection(UniqueFd fd, std::string peer, const ConnectionLimits& limits, SslPtr ssl)
    : fd_(std::move(fd)),
      peer_(std::move(peer)),
      limits_(limits),
      ssl_(std::move(ssl)),
      events_(POLLIN),
      deadline_(std::chrono::steady_clock::now() + limits.request_time) {}

Connection::~Connection() {
  // Not after an error: OpenSSL forbids it.
  if (ssl_ != nullptr && !broken_ && SSL_is_init_finished(ssl_.get())) SSL_shutdown(ssl_.get());
  ERR_clear_error();
  ::shutdown(fd_.get(), SHUT_RDWR);
}

void Connection::Advance() {
  if (state_ == State::kReading) Read();
  if (state_ == State::kWriting) Write();
}

void Connection::Answer(std::string bytes) {
  answer_ = std::move(bytes);
  deadline_ = std::chrono::steady_clock::now() + limits_.response_time;
  state_ = answer_.empty() ? State::kEnded : State::kWriting;
}

void Connection::Read() {
  char buffer[4096];
  while (true) {
    const ssize_t n = Receive(buffer, sizeof buffer);
    if (n == kWouldWait) return;
    if (n <= 0) break;
    const size_t seen = request_.size() - std::min(request_.size(), sizeof kHeadEnd - 2);
    request_.append(buffer, static_cast<size_t>(n));
    if (request_.find(kHeadEnd, seen) != std::string::npos) {
      state_ = State::kReceived;
      return;
    }
    if (request_.size() >= limits_.request_bytes) break;
  }
  state_ = State::kEnded;
}

void Connection::Write() {
  while (sent_ < answer_.size()) {
    const ssize_t n = Transmit(answer_.data() + sent_, answer_.size() - sent_);
    if (n == kWouldWait) return;
    if (n <= 0) break;
    sent_ += static_cast<size_t>(n);
  }
  state_ = State::kEnded;
}

ssize_t Connection::TlsResult(int result) {
  if (result > 0) return result;
  const int error = SSL_get_error(ssl_.get(), result);
  ERR_clear_error();
  if (error == SSL_ERROR_ZERO_RETURN) return 0;
  events_ = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
  if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return kWouldWait;
  broken_ = true;
  return -1;
}

ssize_t Connection::Receive(char* to, size_t size) {
  if (ssl_ != nullptr) return TlsResult(SSL_read(ssl_.get(), to, static_cast<int>(size)));
  const ssize_t n = recv(fd_.get(), to, size, MSG_DONTWAIT);
  events_ = POLLIN;
  return n < 0 && (errno == EINTR || errno == EAGAIN) ? kWouldWait : n;
}

ssize_t Connection::Transmit(const char* from, size_t size) {
  if (ssl_ != nullptr)
    return TlsResult(
        SSL_write(ssl_.get(), from, static_cast<int>(std::min<size_t>(size, 1 << 20))));
  const ssize_t n = send(fd_.get(), from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
  events_ = POLLOUT;
  return n < 0 && (errno == EINTR || errno == EAGAIN) ? kWouldWait : n;
}

}  // namespace switchyard::http
