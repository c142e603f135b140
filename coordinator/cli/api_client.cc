#include "coordinator/cli/api_client.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "absl/random/random.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"

namespace switchyard::coordinator {

ApiClient::ApiClient(const std::string& address) : address_(address) {
  const char* inherited = std::getenv(kTraceparentVariable);
  trace_id_ = TraceIdOf(inherited == nullptr ? "" : inherited).value_or(NewTraceId());
  const auto channel = rpc::MakeChannel(address);
  jobs_ = v1::JobService::NewStub(channel);
  checkpoints_ = v1::CheckpointService::NewStub(channel);
  nodes_ = v1::NodeService::NewStub(channel);
}

absl::Status ApiClient::Error(const grpc::Status& status) const {
  const absl::Status plain = rpc::FromGrpcStatus(status);
  std::string message;
  if (plain.code() == absl::StatusCode::kUnavailable) {
    message =
        absl::StrCat("no coordinator answers at ", address_, " (", status.error_message(),
                     ")\n  Start one on this machine with `switchyard up`, or name another with "
                     "--coordinator HOST:PORT or SWITCHYARD_COORDINATOR.");
  } else if (plain.code() == absl::StatusCode::kDeadlineExceeded) {
    message = absl::StrCat("the coordinator at ", address_, " did not answer in time");
  } else {
    return plain;
  }
  absl::Status result(plain.code(), message);
  plain.ForEachPayload(
      [&](absl::string_view url, const absl::Cord& payload) { result.SetPayload(url, payload); });
  return result;
}

absl::Duration ReconnectDelay(int attempt, double uniform01) {
  const double ceiling = std::min(10.0, 0.2 * std::pow(2.0, std::min(attempt, 10)));
  return absl::Seconds(ceiling * uniform01);
}

void SleepBeforeReconnect(int attempt) {
  absl::BitGen random;
  absl::SleepFor(ReconnectDelay(attempt, absl::Uniform(random, 0.0, 1.0)));
}

std::string RandomRequestId() {
  std::random_device device;
  std::string id;
  for (int i = 0; i < 4; ++i) absl::StrAppend(&id, absl::Hex(device(), absl::kZeroPad8));
  return id;
}

}  // namespace switchyard::coordinator
