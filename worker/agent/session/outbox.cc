#include "worker/agent/session/outbox.h"

#include <algorithm>

namespace switchyard::agent {
namespace {

bool SameAttempt(const v1::AttemptStatus& a, const v1::AttemptStatus& b) {
  return a.job_uid() == b.job_uid() && a.epoch() == b.epoch();
}

}  // namespace

void Outbox::Push(v1::ConnectRequest message) {
  if (message.has_heartbeat()) {
    messages_.push_front(std::move(message));
    return;
  }
  if (message.has_attempt_status()) {
    const auto same = std::find_if(messages_.begin(), messages_.end(), [&](const auto& waiting) {
      return waiting.has_attempt_status() &&
             SameAttempt(waiting.attempt_status(), message.attempt_status());
    });
    if (same != messages_.end()) messages_.erase(same);
  }
  if (message.has_rank_report() && ++reports_ > max_reports_) DropOneReport();
  messages_.push_back(std::move(message));
}

void Outbox::DropOneReport() {
  const auto droppable = [](const v1::ConnectRequest& waiting) {
    return waiting.has_rank_report() && !waiting.rank_report().line().has_eval();
  };
  auto oldest = std::find_if(messages_.begin(), messages_.end(), droppable);
  if (oldest == messages_.end()) {
    oldest = std::find_if(messages_.begin(), messages_.end(),
                          [](const auto& waiting) { return waiting.has_rank_report(); });
  }
  if (oldest == messages_.end()) return;
  messages_.erase(oldest);
  --reports_;
  ++dropped_reports_;
}

std::optional<v1::ConnectRequest> Outbox::Pop() {
  if (messages_.empty()) return std::nullopt;
  v1::ConnectRequest message = std::move(messages_.front());
  messages_.pop_front();
  reports_ -= message.has_rank_report();
  return message;
}

void Outbox::Clear() {
  dropped_reports_ += static_cast<int64_t>(reports_);
  reports_ = 0;
  messages_.clear();
}

}  // namespace switchyard::agent
