// HTTPS requests of one thread, by libcurl; the only file of the coordinator that knows it.
//
// Certificates are always verified. Knows nothing of Kubernetes.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::coordinator {

struct HttpsRequest {
  std::string method = "GET";
  std::string url;
  std::string token;  // bearer token; empty: none
  std::string body;   // JSON; empty: none
  std::chrono::milliseconds timeout{30000};
  // Where a body of status 200 goes as it comes, for answers that do not end; returns false to end
  // the request. Empty: into HttpsResponse::body.
  std::function<bool(absl::string_view)> on_bytes;
};

struct HttpsResponse {
  int status = 0;
  std::string body;
  int retry_after_seconds = -1;  // of the header; -1 without
};

class Transport {
 public:
  // `authority` is a PEM file; empty: the system's authorities.
  explicit Transport(std::string authority);
  ~Transport();

  // Any status that the server answered with. Unavailable when it cannot be reached or its
  // certificate is not good, DeadlineExceeded when `timeout` is over (the request may have had its
  // effect), Cancelled after Stop.
  absl::StatusOr<HttpsResponse> Send(const HttpsRequest& request);
  // False when Stop ended it.
  bool Sleep(std::chrono::milliseconds duration);
  // From any thread: ends what runs and refuses what comes.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::coordinator
