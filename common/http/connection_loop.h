// Accepts connections, and lets a few threads answer the requests that have come in whole.
//
// One thread waits for all sockets, so that whoever sends nothing, or slowly, or does not take an
// answer holds no thread. Where there are too many connections, the oldest that nobody answers
// makes room for the newest: of the same peer first, then of all.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/http/connection.h"
#include "common/http/tls.h"
#include "common/unique_fd.h"

namespace switchyard::http {

class ConnectionLoop {
 public:
  // The bytes to send for a request's head, from `peer`; none ends the connection. Runs on several
  // threads at once.
  using Answerer = std::function<std::string(const std::string& request, const std::string& peer)>;

  // `listener` listens and does not block; `tls` is null for plain text.
  ConnectionLoop(UniqueFd listener, std::unique_ptr<TlsContext> tls, Answerer answerer);
  // Ends all connections and waits for answers that are being made.
  ~ConnectionLoop();
  ConnectionLoop(const ConnectionLoop&) = delete;
  ConnectionLoop& operator=(const ConnectionLoop&) = delete;

 private:
  using Id = uint64_t;  // in the order of acceptance
  using Time = Connection::Time;
  struct Request {
    Id id = 0;
    std::string head;
    std::string peer;
  };

  void Loop();
  void MakeAnswers();
  // Sleeps until something can go on.
  void Wait();
  void Accept();
  // Room for one more of `peer`; false when all are being answered.
  bool MakeRoom(const std::string& peer);
  // Ends the oldest connection that is not being answered, of `peer` or, when empty, of all.
  bool EndOldest(const std::string& peer);
  void Advance(Id id, Connection& connection);
  void Wake();

  const UniqueFd listener_;
  const UniqueFd wake_;  // an eventfd
  const std::unique_ptr<TlsContext> tls_;
  const Answerer answerer_;

  // Of the loop's thread.
  std::map<Id, std::unique_ptr<Connection>> connections_;
  Id next_id_ = 1;
  Time accept_again_{};  // after an error

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Request> requests_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::pair<Id, std::string>> answers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_;
};

}  // namespace switchyard::http
