// TLS for gRPC: TLS 1.3 only; new certificates need no restart.
#pragma once

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/security/certificate_watch.h"

namespace switchyard::rpc {

// gRPC 1.51 cannot be told the version of its credentials, only its TLS 1.2 cipher suites: this
// leaves it one that no handshake can ever use. Call first thing in main, before gRPC starts; the
// functions below refuse to work without.
void AllowOnlyTls13();

// What gRPC has to say goes into the program's own log, a few lines a second at most: strangers who
// fail a handshake cannot fill a disk. For daemons, first thing in main.
void AdoptGrpcLog();

// A server's: each connection gets the newest certificate that could be used
// (security/certificate_watch.h). Clients may show one, and then it must be of the authority's:
// agents do, people have tokens. For one port, and must outlive its server. FailedPrecondition when
// the files cannot be used.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServer(
    const security::CertificateFiles& files);

// An agent's, which shows its certificate. Not thread-safe.
class TlsAgent {
 public:
  // FailedPrecondition when the files cannot be used.
  static absl::StatusOr<std::shared_ptr<TlsAgent>> Open(const security::CertificateFiles& files);

  // Another object once there is another certificate that can be used. A connection shows the one
  // with which its channel was made, as long as it lasts: make a new channel then.
  std::shared_ptr<grpc::ChannelCredentials> Current();

 private:
  explicit TlsAgent(std::unique_ptr<security::CertificateWatch> watch);

  const std::unique_ptr<security::CertificateWatch> watch_;
  std::shared_ptr<const security::CertificateBytes> shown_;
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
};

// How a client reaches a coordinator.
struct ClientSecurity {
  std::string authority;    // PEM file; empty: plain text
  std::string token;        // bearer token; only ever sent over TLS
  bool plain_text = false;  // asked for, also beyond loopback
};
// InvalidArgument, with the way out, for plain text to another machine that nobody asked for.
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(
    const std::string& address, const ClientSecurity& security);

// Whether "HOST:PORT" is of the loopback interface, by its text: 127.*, [::1] or localhost.
bool IsLoopback(const std::string& address);

}  // namespace switchyard::rpc
