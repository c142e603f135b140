#include "common/http/tls.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/security/openssl_handles.h"
#include "common/status_macros.h"

namespace switchyard::http {
namespace {

using ContextPtr = std::unique_ptr<SSL_CTX, SslDelete>;

// Null, with an error of OpenSSL's, where a pair that fits is nothing to serve: a key too short.
ContextPtr ContextOf(const security::CertificateBytes& bytes, bool require_client) {
  ContextPtr context(SSL_CTX_new(TLS_server_method()));
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  const auto key = security::KeyOf(bytes.key);
  const auto chain = security::CertificatesOf(bytes.certificate);
  bool good = key != nullptr && !chain.empty() &&
              SSL_CTX_use_certificate(context.get(), chain.front().get()) == 1 &&
              SSL_CTX_use_PrivateKey(context.get(), key.get()) == 1;
  for (size_t i = 1; i < chain.size(); ++i)
    good = good && SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) == 1;
  for (const auto& root : security::CertificatesOf(bytes.authority))
    good = good && X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), root.get()) == 1;
  if (require_client)
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return good ? std::move(context) : nullptr;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Create(
    const security::CertificateFiles& files, bool require_client) {
  std::unique_ptr<TlsContext> tls(new TlsContext());
  const auto use = [&context = tls->context_, certificate = files.certificate,
                    require_client](const security::CertificateBytes& bytes) {
    ContextPtr newest = ContextOf(bytes, require_client);
    if (newest == nullptr) {
      return absl::FailedPreconditionError(
          absl::StrCat(certificate, " cannot be used: ", security::OpensslError()));
    }
    context = std::move(newest);
    return absl::OkStatus();
  };
  SWITCHYARD_ASSIGN_OR_RETURN(tls->watch_,
                              security::CertificateWatch::Open(files, absl::Now(), use));
  return tls;
}

SslPtr TlsContext::Start(int fd, absl::Time now) {
  watch_->Current(now);
  SslPtr ssl(SSL_new(context_.get()));  // keeps the context
  SSL_set_fd(ssl.get(), fd);
  SSL_set_accept_state(ssl.get());
  return ssl;
}

}  // namespace switchyard::http
