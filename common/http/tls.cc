#include "common/http/tls.h"

#include <openssl/err.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/log.h"
#include "common/security/certificate_watch.h"
#include "common/status_macros.h"

namespace switchyard::http {
namespace {

constexpr absl::Duration kCheckInterval = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Create(
    const security::CertificateFiles& files, bool require_client) {
  std::unique_ptr<TlsContext> context(new TlsContext(files, require_client));
  absl::MutexLock lock(&context->mutex_);
  context->stamp_ = security::StampOf(files);
  context->checked_ = absl::Now();
  SWITCHYARD_ASSIGN_OR_RETURN(context->context_, context->Load());
  return context;
}

absl::StatusOr<TlsContext::ContextPtr> TlsContext::Load() const {
  const auto info = security::CheckCertificateFiles(files_, absl::Now());
  if (!info.ok()) return absl::FailedPreconditionError(info.status().message());
  const ContextPtr context(SSL_CTX_new(TLS_server_method()), SslDelete());
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_RENEGOTIATION);
  const bool good =
      SSL_CTX_use_certificate_chain_file(context.get(), files_.certificate.c_str()) == 1 &&
      SSL_CTX_use_PrivateKey_file(context.get(), files_.key.c_str(), SSL_FILETYPE_PEM) == 1 &&
      SSL_CTX_load_verify_locations(context.get(), files_.authority.c_str(), nullptr) == 1;
  ERR_clear_error();
  if (!good)
    return absl::FailedPreconditionError(absl::StrCat(files_.certificate, " cannot be used"));
  if (require_client_)
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return context;
}

SslPtr TlsContext::Start(int fd) {
  ContextPtr context;
  {
    absl::MutexLock lock(&mutex_);
    if (const absl::Time now = absl::Now(); now - checked_ >= kCheckInterval) {
      checked_ = now;
      if (std::string stamp = security::StampOf(files_); stamp != stamp_) {
        if (auto loaded = Load(); loaded.ok()) {
          context_ = *std::move(loaded);
          stamp_ = std::move(stamp);
        } else {  // halfway through a change, perhaps: looked at again with the next connection
          log::Warning("http.certificate_not_taken",
                       {{"error", std::string(loaded.status().message())}});
        }
      }
    }
    context = context_;
  }
  SslPtr ssl(SSL_new(context.get()));  // keeps the context
  SSL_set_fd(ssl.get(), fd);
  SSL_set_accept_state(ssl.get());
  return ssl;
}

}  // namespace switchyard::http
