// A small read-only HTTP server: GET and HEAD, one request a connection, tight limits.
//
// Coordinator and agent serve /metrics, /healthz and pages with it; this is the only room that
// knows cpp-httplib. Knows nothing of what is served and of who may read it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/security/certificates.h"

namespace switchyard::http {

struct Request {
  std::string path;                          // percent-decoded, without the query
  std::map<std::string, std::string> query;  // percent-decoded; of a repeated name the first
  std::string authorization;                 // the header as sent, empty without
  std::string if_none_match;
  std::string peer;  // numeric address of the other end
};

struct Response {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// A sentence as plain text.
Response TextResponse(int status, std::string text);

// Runs on one of the server's threads; several at once.
using Handler = std::function<Response(const Request&)>;

struct Options {
  // "HOST:PORT" with a numeric host (IPv6 in brackets) or "localhost"; port 0 lets the system
  // choose.
  std::string address;
  std::string flag = "--metrics";                 // named in errors
  std::optional<security::CertificateFiles> tls;  // empty: plain text
  bool require_client_certificate = false;        // of the authority; with tls
  // Asked before every handler but /healthz; a response is the answer instead. Empty: everyone may
  // who names the server by a numeric address or localhost (a page of another site that has its own
  // name lead here may not).
  std::function<std::unique_ptr<Response>(const Request&)> authorize;
};

class Server {
 public:
  // The port is open, but nothing is answered before Serve. InvalidArgument when the address cannot
  // be read, Unavailable when it cannot be bound (port taken), FailedPrecondition when certificates
  // cannot be used.
  static absl::StatusOr<std::unique_ptr<Server>> Bind(Options options);
  // Ends open connections and waits for handlers that run.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // `path` exactly, or, when it ends in "/", everything below that no longer path takes. Before
  // Serve.
  void Handle(const std::string& path, Handler handler);
  // Replaces Options::authorize. Before Serve.
  void Authorize(std::function<std::unique_ptr<Response>(const Request&)> authorize);
  // Answers from now on, on threads of its own.
  void Serve();

  // "HOST:PORT" with the port that is really open.
  const std::string& address() const;
  int port() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::http
