// TLS 1.3 for connections that were accepted: handshake, and certificates that change while it
// serves.
#pragma once

#include <openssl/ssl.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/security/certificates.h"

namespace switchyard::http {

struct SslDelete {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using SslPtr = std::unique_ptr<SSL, SslDelete>;

class TlsContext {
 public:
  // `require_client`: who connects must show a certificate of the authority. FailedPrecondition
  // when the files cannot be used.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Create(const security::CertificateFiles& files,
                                                            bool require_client);

  // A session on `fd`, which must not block, before its handshake. Takes new files when there are;
  // when those cannot be used, it goes on with what it had.
  SslPtr Start(int fd);

 private:
  using ContextPtr = std::shared_ptr<SSL_CTX>;
  TlsContext(security::CertificateFiles files, bool require_client)
      : files_(std::move(files)), require_client_(require_client) {}

  absl::StatusOr<ContextPtr> Load() const;

  const security::CertificateFiles files_;
  const bool require_client_;
  absl::Mutex mutex_;
  ContextPtr context_ ABSL_GUARDED_BY(mutex_);
  std::string stamp_ ABSL_GUARDED_BY(mutex_);  // of the files that were read
  absl::Time checked_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::http
