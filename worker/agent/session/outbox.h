// What waits to be sent on the session: lifecycle messages never lost, reports bounded.
//
// Order is kept, so that a rank's last step is told before its end. A newer AttemptStatus replaces
// one of the same attempt that still waits. When more than max_reports reports wait, the oldest one
// goes (evaluations last).
#pragma once

#include <deque>
#include <optional>

#include "switchyard/agent/v1/agent.pb.h"

namespace switchyard::agent {

class Outbox {
 public:
  explicit Outbox(size_t max_reports = 1000) : max_reports_(max_reports) {}

  void Push(v1::ConnectRequest message);
  std::optional<v1::ConnectRequest> Pop();
  // The session is over: what waited is told anew by the next Hello, or was droppable.
  void Clear();
  bool empty() const { return messages_.empty(); }
  int64_t dropped_reports() const { return dropped_reports_; }

 private:
  void DropOneReport();

  size_t max_reports_;
  size_t reports_ = 0;
  int64_t dropped_reports_ = 0;
  std::deque<v1::ConnectRequest> messages_;
};

}  // namespace switchyard::agent
