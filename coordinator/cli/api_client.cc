#include "coordinator/cli/api_client.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>

#include "absl/random/random.h"
#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/durable_file.h"
#include "common/rpc/channel.h"
#include "common/rpc/credentials.h"
#include "common/security/token.h"
#include "common/status_macros.h"

namespace switchyard::coordinator {

namespace {

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const Endpoint& endpoint) {
  rpc::ClientSecurity security;
  security.authority = endpoint.authority;
  security.plain_text = endpoint.plain_text;
  security.token = endpoint.token;
  if (!endpoint.token_file.empty() && !endpoint.authority.empty()) {
    SWITCHYARD_ASSIGN_OR_RETURN(security.token, ReadSmallFile(endpoint.token_file, 4096));
  }
  absl::StripAsciiWhitespace(&security.token);
  if (!security.token.empty() && !security::ParseToken(security.token)) {
    return absl::InvalidArgumentError(
        absl::StrCat(endpoint.token_file.empty() ? "SWITCHYARD_TOKEN" : endpoint.token_file,
                     " holds no token (sy_...)"));
  }
  return rpc::ClientCredentials(endpoint.address, security);
}

}  // namespace

ApiClient::ApiClient(const Endpoint& endpoint)
    : address_(endpoint.address), tls_(!endpoint.authority.empty()) {
  const char* inherited = std::getenv(kTraceparentVariable);
  trace_id_ = TraceIdOf(inherited == nullptr ? "" : inherited).value_or(NewTraceId());
  const auto credentials = Credentials(endpoint);
  setup_ = credentials.status();
  const auto channel = rpc::MakeChannel(address_, credentials.ok() ? *credentials : nullptr);
  jobs_ = v1::JobService::NewStub(channel);
  checkpoints_ = v1::CheckpointService::NewStub(channel);
  nodes_ = v1::NodeService::NewStub(channel);
  access_ = v1::AccessService::NewStub(channel);
}

absl::Status ApiClient::Error(const grpc::Status& status) const {
  if (!setup_.ok()) return setup_;
  absl::Status plain = rpc::FromGrpcStatus(status);
  std::string message;
  if (plain.code() == absl::StatusCode::kUnavailable) {
    message = absl::StrCat(
        "no coordinator answers at ", address_, " (", status.error_message(),
        ")\n  Start one on this machine with `switchyard up`, or name another with "
        "--coordinator HOST:PORT or SWITCHYARD_COORDINATOR.",
        tls_ ? "\n  If one runs there: is --ca the authority of its certificate, and "
               "is the certificate for this name?"
             : "\n  If one runs there with TLS: give --ca FILE and --token-file FILE.");
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
