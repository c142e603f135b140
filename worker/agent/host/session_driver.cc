#include "worker/agent/host/session_driver.h"

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/rpc/channel.h"

namespace switchyard::agent {
namespace {

constexpr std::chrono::milliseconds kFirstDelay{200};
constexpr std::chrono::milliseconds kLastDelay{5000};
constexpr std::chrono::seconds kComplaintInterval{30};

}  // namespace

SessionDriver::SessionDriver(std::string target, Credentials credentials, std::string advice,
                             Inbox& inbox, LogSpool& spool, Callbacks callbacks)
    : target_(std::move(target)),
      advice_(std::move(advice)),
      inbox_(inbox),
      spool_(spool),
      callbacks_(std::move(callbacks)),
      credentials_(std::move(credentials)),
      backoff_(kFirstDelay, kLastDelay, std::random_device{}()) {}

SessionDriver::~SessionDriver() { stream_.reset(); }

void SessionDriver::Dial() {
  const int64_t generation = ++generation_;
  // Callbacks of gRPC's threads come back on the loop's; of an earlier stream they are ignored.
  const auto on_loop = [this, generation](auto work) {
    inbox_.Post([this, generation, work = std::move(work)]() mutable {
      if (generation == generation_) work();
    });
  };
  CoordinatorStream::Callbacks callbacks;
  callbacks.on_message = [this, on_loop](v1::ConnectResponse message) {
    on_loop([this, message = std::move(message)]() mutable {
      callbacks_.on_message(std::move(message));
    });
  };
  callbacks.on_written = [this, on_loop] { on_loop([this] { writing_ = false; }); };
  callbacks.on_closed = [this, on_loop](const grpc::Status& status) {
    on_loop([this, status] { OnClosed(status); });
  };
  writing_ = false;
  // A connection shows the certificate with which it was made and outlives refused sessions: a new
  // certificate needs a new one.
  if (auto newest = credentials_(); newest != shown_) {
    channel_ = rpc::MakeChannel(target_, newest);
    shown_ = std::move(newest);
  }
  stream_ = std::make_unique<CoordinatorStream>(channel_, std::move(callbacks));
  callbacks_.on_opened();
}

void SessionDriver::OnClosed(const grpc::Status& status) {
  ++generation_;
  stream_.reset();
  outbox_.Clear();
  spool_.OnSessionLost();
  const Time now = std::chrono::steady_clock::now();
  next_dial_ = now + backoff_.Next();
  if (now - last_complaint_ >= kComplaintInterval) {
    last_complaint_ = now;
    const std::string reason = status.ok()
                                   ? "the coordinator ended the session"
                                   : absl::StrCat(status.error_message(), " (code ",
                                                  static_cast<int>(status.error_code()), ")");
    const bool silent = status.error_code() == grpc::StatusCode::UNAVAILABLE;
    log::Warning("coordinator.unreachable",
                 {{"coordinator", target_}, {"reason", reason}, {"advice", silent ? advice_ : ""}});
  }
  callbacks_.on_closed();
}

void SessionDriver::Close(const std::string& reason) {
  log::Warning("session.closed", {{"coordinator", target_}, {"reason", reason}});
  if (stream_ != nullptr) stream_->Cancel();
}

void SessionDriver::Turn(Time now, bool welcomed) {
  if (stream_ == nullptr && now >= next_dial_) Dial();
  if (welcomed) {
    backoff_.Reset();
    last_complaint_ = {};
  }
  if (stream_ == nullptr || writing_) return;
  std::optional<v1::ConnectRequest> next = outbox_.Pop();
  if (!next.has_value() && welcomed) {
    if (auto chunk = spool_.Next()) *next.emplace().mutable_log_chunk() = *std::move(chunk);
  }
  if (!next.has_value()) return;
  writing_ = true;
  stream_->Write(*next);
}

std::optional<SessionDriver::Time> SessionDriver::NextDial() const {
  if (stream_ != nullptr) return std::nullopt;
  return next_dial_;
}

bool SessionDriver::Drained() const { return stream_ == nullptr || (outbox_.empty() && !writing_); }

}  // namespace switchyard::agent
