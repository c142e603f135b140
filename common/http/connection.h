// One connection as cpp-httplib's stream: a socket, with TLS or without, bounded in time and size.
#pragma once

#include <httplib.h>

#include <chrono>
#include <cstddef>
#include <string>

#include "common/http/tls.h"

namespace switchyard::http {

struct ConnectionLimits {
  size_t request_bytes = 32 * 1024;                // request line and headers
  std::chrono::milliseconds request_time{5000};    // from accept to the last byte of the request
  std::chrono::milliseconds response_time{20000};  // from the first to the last byte sent
};

class Connection final : public httplib::Stream {
 public:
  // `fd` is borrowed and connected; without `ssl`, null, it may be blocking. The handshake is part
  // of the first read.
  Connection(int fd, const ConnectionLimits& limits, SslPtr ssl);
  // Says goodbye.
  ~Connection() override;

  bool is_readable() const override;
  bool is_writable() const override;
  // -1 when the peer is gone, too slow or sends too much.
  ssize_t read(char* to, size_t size) override;
  ssize_t write(const char* from, size_t size) override;
  using httplib::Stream::write;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return fd_; }

 private:
  using Time = std::chrono::steady_clock::time_point;

  // One read or write as far as it goes without waiting: bytes, 0 at the end, -1 on an error, or -2
  // with the event to wait for.
  ssize_t Receive(char* to, size_t size, short& wait_for);
  ssize_t Transmit(const char* from, size_t size, short& wait_for);
  ssize_t TlsResult(int result, short& wait_for);
  // Waits for `events` of poll(2) until `deadline`.
  bool Wait(short events, Time deadline) const;

  const int fd_;
  const ConnectionLimits limits_;
  const SslPtr ssl_;
  const Time read_until_;
  Time write_until_{};
  bool broken_ = false;  // TLS failed
  size_t received_ = 0;
  char buffer_[4096];
  size_t begin_ = 0;
  size_t end_ = 0;
};

}  // namespace switchyard::http
