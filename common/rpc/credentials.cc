#include "common/rpc/credentials.h"

#include <grpc/support/log.h>
#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <cstdlib>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "common/durable_file.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::rpc {
namespace {

using grpc::experimental::FileWatcherCertificateProvider;

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

absl::Status CheckFiles(const security::CertificateFiles& files) {
  SWITCHYARD_RETURN_IF_ERROR(CheckTls13());
  const auto info = security::CheckCertificateFiles(files, absl::Now());
  if (info.ok()) return absl::OkStatus();
  return absl::FailedPreconditionError(info.status().message());
}

std::shared_ptr<FileWatcherCertificateProvider> Watch(const security::CertificateFiles& files) {
  return std::make_shared<FileWatcherCertificateProvider>(
      files.key, files.certificate, files.authority, kCertificateRefreshSeconds);
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
  SWITCHYARD_RETURN_IF_ERROR(CheckFiles(files));
  grpc::experimental::TlsServerCredentialsOptions options(Watch(files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  options.set_cert_request_type(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> TlsAgent(
    const security::CertificateFiles& files) {
  SWITCHYARD_RETURN_IF_ERROR(CheckFiles(files));
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(Watch(files));
  options.watch_root_certs();
  options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
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
