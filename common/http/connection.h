// One accepted connection: a request's head comes in and its answer goes out, by TLS or without,
// never waiting, bounded in time and size.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>

#include "common/http/tls.h"
#include "common/unique_fd.h"

namespace switchyard::http {

struct ConnectionLimits {
  size_t request_bytes = 32 * 1024;                // request line and headers
  std::chrono::milliseconds request_time{5000};    // from accept, handshake included
  std::chrono::milliseconds response_time{20000};  // from the first to the last byte sent
};

class Connection {
 public:
  using Time = std::chrono::steady_clock::time_point;
  enum class State {
    kReading,   // handshake and request
    kReceived,  // the head is there, whole
    kWriting,   // the answer
    kEnded,     // answered, or the peer is gone or sent too much
  };

  // `fd` must not block. `peer` is the numeric address of the other end. Without TLS `ssl` is null.
  Connection(UniqueFd fd, std::string peer, const ConnectionLimits& limits, SslPtr ssl);
  // Says goodbye.
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Reads or writes as far as it goes.
  void Advance();
  // What to send; once, when received.
  void Answer(std::string bytes);

  State state() const { return state_; }
  int fd() const { return fd_.get(); }
  const std::string& peer() const { return peer_; }
  // The head and whatever of a body came with it; when received.
  const std::string& request() const { return request_; }
  // While reading or writing: what to wait for with poll(2), and until when.
  short events() const { return events_; }
  Time deadline() const { return deadline_; }

 private:
  void Read();
  void Write();
  // As far as it goes: bytes, 0 at the end, -1 on an error, or -2 with events_ set.
  ssize_t Receive(char* to, size_t size);
  ssize_t Transmit(const char* from, size_t size);
  ssize_t TlsResult(int result);

  const UniqueFd fd_;
  const std::string peer_;
  const ConnectionLimits limits_;
  const SslPtr ssl_;
  State state_ = State::kReading;
  short events_;
  Time deadline_;
  bool broken_ = false;  // TLS failed
  std::string request_;
  std::string answer_;
  size_t sent_ = 0;
};

}  // namespace switchyard::http
