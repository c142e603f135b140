#include "common/http/connection_loop.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

namespace switchyard::http {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kAnsweringThreads = 8;
constexpr size_t kMaxConnections = 256;
constexpr size_t kMaxConnectionsOfPeer = 64;
constexpr int kAcceptedAtOnce = 16;
constexpr std::chrono::milliseconds kPauseAfterError{100};

std::string NameOf(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof text);
  } else if (address.ss_family == AF_INET6) {
    inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text,
              sizeof text);
  }
  return text;
}

bool IsBeingAnswered(const Connection& connection) {
  return connection.state() == Connection::State::kReceived;
}

}  // namespace

ConnectionLoop::ConnectionLoop(UniqueFd listener, std::unique_ptr<TlsContext> tls,
                               Answerer answerer)
    : listener_(std::move(listener)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      tls_(std::move(tls)),
      answerer_(std::move(answerer)) {
  threads_.emplace_back([this] { Loop(); });
  for (int i = 0; i < kAnsweringThreads; ++i) threads_.emplace_back([this] { MakeAnswers(); });
}

ConnectionLoop::~ConnectionLoop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  Wake();
  for (std::thread& thread : threads_) thread.join();
}

void ConnectionLoop::Wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t n = ::write(wake_.get(), &one, sizeof one);
}

void ConnectionLoop::MakeAnswers() {
  const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !requests_.empty();
  };
  while (true) {
    Request request;
    {
      absl::MutexLock lock(&mutex_, absl::Condition(&ready));
      if (stopping_) return;
      request = std::move(requests_.front());
      requests_.pop_front();
    }
    std::string bytes = answerer_(request.head, request.peer);
    {
      absl::MutexLock lock(&mutex_);
      answers_.emplace_back(request.id, std::move(bytes));
    }
    Wake();
  }
}

void ConnectionLoop::Loop() {
  while (true) {
    std::vector<std::pair<Id, std::string>> answers;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) break;
      answers.swap(answers_);
    }
    for (auto& [id, bytes] : answers) {
      Connection& connection = *connections_.at(id);
      connection.Answer(std::move(bytes));
      Advance(id, connection);
    }
    const Time now = SteadyClock::now();
    for (auto it = connections_.begin(); it != connections_.end();) {
      const Connection& connection = *it->second;
      const bool over = connection.state() == Connection::State::kEnded ||
                        (!IsBeingAnswered(connection) && connection.deadline() <= now);
      it = over ? connections_.erase(it) : std::next(it);
    }
    Wait();
  }
  connections_.clear();
}

void ConnectionLoop::Wait() {
  const Time now = SteadyClock::now();
  const bool accepts = accept_again_ <= now;
  std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0},
                                {accepts ? listener_.get() : -1, POLLIN, 0}};
  std::vector<Id> ids;
  Time until = accepts ? Time::max() : accept_again_;
  for (const auto& [id, connection] : connections_) {
    if (IsBeingAnswered(*connection)) continue;
    polled.push_back({connection->fd(), connection->events(), 0});
    ids.push_back(id);
    until = std::min(until, connection->deadline());
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now).count();
  const int timeout = until == Time::max() ? -1 : static_cast<int>(std::max<int64_t>(left, 0));
  if (::poll(polled.data(), polled.size(), timeout) <= 0) return;
  if (polled[0].revents != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = ::read(wake_.get(), &count, sizeof count);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (polled[i + 2].revents != 0) Advance(ids[i], *connections_.at(ids[i]));
  }
  if (polled[1].revents != 0) Accept();
}

void ConnectionLoop::Accept() {
  for (int i = 0; i < kAcceptedAtOnce; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    UniqueFd fd(::accept4(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size,
                          SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
      if (errno == EAGAIN) return;
      if (errno == EINTR || errno == ECONNABORTED) continue;
      // Out of descriptors or memory, most likely.
      if (!EndOldest("")) accept_again_ = SteadyClock::now() + kPauseAfterError;
      return;
    }
    std::string peer = NameOf(address);
    if (!MakeRoom(peer)) continue;
    SslPtr ssl = tls_ == nullptr ? nullptr : tls_->Start(fd.get());
    const Id id = next_id_++;
    Connection& connection =
        *connections_
             .emplace(id, std::make_unique<Connection>(std::move(fd), std::move(peer),
                                                       ConnectionLimits(), std::move(ssl)))
             .first->second;
    // At once: what its peer has sent counts before it could be the oldest.
    Advance(id, connection);
  }
}

bool ConnectionLoop::MakeRoom(const std::string& peer) {
  const auto of_peer = std::count_if(connections_.begin(), connections_.end(),
                                     [&](const auto& c) { return c.second->peer() == peer; });
  if (static_cast<size_t>(of_peer) >= kMaxConnectionsOfPeer) return EndOldest(peer);
  return connections_.size() < kMaxConnections || EndOldest("");
}

bool ConnectionLoop::EndOldest(const std::string& peer) {
  for (auto it = connections_.begin(); it != connections_.end(); ++it) {
    if (IsBeingAnswered(*it->second) || (!peer.empty() && it->second->peer() != peer)) continue;
    connections_.erase(it);
    return true;
  }
  return false;
}

void ConnectionLoop::Advance(Id id, Connection& connection) {
  const bool was_reading = connection.state() == Connection::State::kReading;
  connection.Advance();
  if (!was_reading || !IsBeingAnswered(connection)) return;
  absl::MutexLock lock(&mutex_);
  requests_.push_back({id, connection.request(), connection.peer()});
}

}  // namespace switchyard::http
