#include "common/rpc/credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/log.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::rpc {
namespace {

constexpr char kSuitesVariable[] = "GRPC_SSL_CIPHER_SUITES";
// Needs a key that both sides agreed on beforehand, which no program here ever has. TLS 1.3 has its
// own list of suites.
constexpr char kUnusableSuite[] = "PSK-AES256-GCM-SHA384";
constexpr int64_t kMaxFileBytes = 1 << 20;

absl::Status CheckTls13() {
  const char* suites = std::getenv(kSuitesVariable);
  if (suites != nullptr && std::strcmp(suites, kUnusableSuite) == 0) return absl::OkStatus();
  return absl::InternalError("TLS was set up before AllowOnlyTls13");
}

// gRPC asks for the certificate with every connection. Its own watching of files takes them one by
// one, whether they fit together or not.
class WatchedServerCredentials final : public grpc::ServerCredentials {
 public:
  explicit WatchedServerCredentials(std::unique_ptr<security::CertificateWatch> watch)
      : watch_(std::move(watch)),
        credentials_(grpc_ssl_server_credentials_create_with_options(
            grpc_ssl_server_credentials_create_options_using_config_fetcher(
                GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY, &Fetch, this))) {}
  ~WatchedServerCredentials() override { grpc_server_credentials_release(credentials_); }

  // None is used: tokens are looked at by what serves.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  static grpc_ssl_certificate_config_reload_status Fetch(
      void* credentials, grpc_ssl_server_certificate_config** config) {
    auto* self = static_cast<WatchedServerCredentials*>(credentials);
    auto newest = self->watch_->Current();
    absl::MutexLock lock(&self->mutex_);
    if (newest == self->given_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair = {newest->key.c_str(), newest->certificate.c_str()};
    *config = grpc_ssl_server_certificate_config_create(newest->authority.c_str(), &pair, 1);
    self->given_ = std::move(newest);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  const std::unique_ptr<security::CertificateWatch> watch_;
  absl::Mutex mutex_;
  std::shared_ptr<const security::CertificateBytes> given_ ABSL_GUARDED_BY(mutex_);  // to gRPC
  grpc_server_credentials* const credentials_;
};

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(const security::CertificateBytes& bytes) {
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      std::make_shared<grpc::experimental::StaticDataCertificateProvider>(
          bytes.authority,
          std::vector<grpc::experimental::IdentityKeyCertPair>{{bytes.key, bytes.certificate}}));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

}  // namespace

void AllowOnlyTls13() { ::setenv(kSuitesVariable, kUnusableSuite, 1); }

void AdoptGrpcLog() {
  gpr_set_log_function([](gpr_log_func_args* args) {
    constexpr int kLinesASecond = 5;
    static absl::Mutex mutex(absl::kConstInit);
    static int64_t second = 0;
    static int lines = 0;
    {
      absl::MutexLock lock(&mutex);
      const int64_t now = absl::ToUnixSeconds(absl::Now());
      if (now != second) lines = 0;
      second = now;
      if (++lines > kLinesASecond) return;
    }
    log::Warning("grpc.says", {{"what", args->message}});
  });
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> TlsServer(
    const security::CertificateFiles& files) {
  SWITCHYARD_RETURN_IF_ERROR(CheckTls13());
  SWITCHYARD_ASSIGN_OR_RETURN(auto watch, security::CertificateWatch::Open(files));
  return std::make_shared<WatchedServerCredentials>(std::move(watch));
}

TlsAgent::TlsAgent(std::unique_ptr<security::CertificateWatch> watch) : watch_(std::move(watch)) {}

absl::StatusOr<std::shared_ptr<TlsAgent>> TlsAgent::Open(const security::CertificateFiles& files) {
  SWITCHYARD_RETURN_IF_ERROR(CheckTls13());
  SWITCHYARD_ASSIGN_OR_RETURN(auto watch, security::CertificateWatch::Open(files));
  return std::shared_ptr<TlsAgent>(new TlsAgent(std::move(watch)));
}

std::shared_ptr<grpc::ChannelCredentials> TlsAgent::Current() {
  if (auto newest = watch_->Current(); newest != shown_) {
    credentials_ = CredentialsOf(*newest);
    shown_ = std::move(newest);
  }
  return credentials_;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(
    const std::string& address, const ClientSecurity& security) {
  if (security.authority.empty()) {
    if (IsLoopback(address) || security.plain_text) return grpc::InsecureChannelCredentials();
    return absl::InvalidArgumentError(absl::StrCat(
        "--coordinator is \"", address,
        "\", on another machine: give its certificate authority with --ca FILE (ca.crt of its "
        "--security-dir) or SWITCHYARD_CA, and a token; or, where the network is trusted and the "
        "coordinator serves plain text, --plain-text"));
  }
  SWITCHYARD_RETURN_IF_ERROR(CheckTls13());
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string pem,
                              ReadSmallFile(security.authority, kMaxFileBytes));
  if (const auto info = security::ParseCertificate(pem); !info.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ca ", security.authority, ": ", info.status().message()));
  }
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(
      std::make_shared<grpc::experimental::StaticDataCertificateProvider>(pem));
  options.watch_root_certs();
  const std::shared_ptr<grpc::ChannelCredentials> tls = grpc::experimental::TlsCredentials(options);
  if (security.token.empty()) return tls;
  return grpc::CompositeChannelCredentials(tls, grpc::AccessTokenCredentials(security.token));
}

bool IsLoopback(const std::string& address) {
  const std::string host = address.substr(0, address.rfind(':'));
  if (host == "localhost" || host == "[::1]") return true;
  // Digits and dots only: "127.0.0.1.example.com" is a name of somebody else's.
  return absl::StartsWith(host, "127.") &&
         host.find_first_not_of("0123456789.") == std::string::npos;
}

}  // namespace switchyard::rpc
