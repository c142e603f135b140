// TLS 1.3 for connections that were accepted: handshake, and certificates that change while it
// serves.
#pragma once

#include <openssl/ssl.h>

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/security/certificate_watch.h"

namespace switchyard::http {

struct SslDelete {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using SslPtr = std::unique_ptr<SSL, SslDelete>;

// Not thread-safe.
class TlsContext {
 public:
  // `require_client`: who connects must show a certificate of the authority. FailedPrecondition
  // when the files cannot be used.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Create(const security::CertificateFiles& files,
                                                            bool require_client);

  // A session on `fd`, which must not block, before its handshake, with the newest certificate that
  // could be used (security/certificate_watch.h).
  SslPtr Start(int fd, absl::Time now = absl::Now());

 private:
  TlsContext() = default;

  std::unique_ptr<SSL_CTX, SslDelete> context_;        // of what the watch took
  std::unique_ptr<security::CertificateWatch> watch_;  // sets context_
};

}  // namespace switchyard::http
