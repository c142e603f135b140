#include "common/security/certificates.h"

#include <arpa/inet.h>

#include <ctime>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/durable_file.h"
#include "common/security/openssl_handles.h"
#include "common/security/private_file.h"
#include "common/status_macros.h"

namespace switchyard::security {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr absl::string_view kAgentPrefix = "spiffe://switchyard/agent/";

absl::Time TimeOf(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTimeT(timegm(&parts));
}

std::string StringOf(const ASN1_STRING* text) {
  return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                     static_cast<size_t>(ASN1_STRING_length(text)));
}

std::string AddressText(const ASN1_STRING* bytes) {
  char text[INET6_ADDRSTRLEN] = {};
  const int family = ASN1_STRING_length(bytes) == 4 ? AF_INET : AF_INET6;
  if (family == AF_INET6 && ASN1_STRING_length(bytes) != 16) return "";
  return inet_ntop(family, ASN1_STRING_get0_data(bytes), text, sizeof(text)) == nullptr ? "" : text;
}

void ReadNames(X509* certificate, CertificateInfo& info) {
  const OpensslPtr<GENERAL_NAMES> names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_DNS) info.hosts.push_back(StringOf(name->d.dNSName));
    if (name->type == GEN_IPADD) info.hosts.push_back(AddressText(name->d.iPAddress));
    if (name->type == GEN_URI) info.uris.push_back(StringOf(name->d.uniformResourceIdentifier));
  }
}

CertificateInfo InfoOf(X509* certificate) {
  CertificateInfo info;
  const OpensslPtr<BIO> out(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(out.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  info.subject = TextOf(out.get());
  ReadNames(certificate, info);
  info.not_before = TimeOf(X509_get0_notBefore(certificate));
  info.not_after = TimeOf(X509_get0_notAfter(certificate));
  return info;
}

// Of a file in which one is broken, or that has none. Takes OpenSSL's error of reading it.
absl::Status NoCertificate(const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, " holds what is no certificate in PEM form: ", OpensslError()));
}

// Any of the certificates in `authority` may be the issuer.
absl::Status CheckIssuer(const CertificateFiles& files, X509* certificate,
                         absl::string_view authority) {
  const OpensslPtr<X509_STORE> store(X509_STORE_new());
  const auto roots = CertificatesOf(authority);
  if (roots.empty()) return NoCertificate(files.authority);
  for (const auto& root : roots) X509_STORE_add_cert(store.get(), root.get());
  const OpensslPtr<X509_STORE_CTX> context(X509_STORE_CTX_new());
  X509_STORE_CTX_init(context.get(), store.get(), certificate, nullptr);
  X509_VERIFY_PARAM_set_flags(X509_STORE_CTX_get0_param(context.get()), X509_V_FLAG_PARTIAL_CHAIN);
  if (X509_verify_cert(context.get()) == 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(files.certificate, " is not a good certificate of ", files.authority, ": ",
                   X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())),
                   "; issue a new one (switchyard-coordinator issue-server, issue-agent)"));
}

}  // namespace

absl::StatusOr<CertificateInfo> ParseCertificate(absl::string_view pem) {
  const OpensslPtr<X509> certificate = CertificateOf(pem);
  if (certificate == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("no certificate in PEM form: ", OpensslError()));
  return InfoOf(certificate.get());
}

absl::StatusOr<CertificateInfo> ReadCertificate(const std::string& path) {
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string pem, ReadSmallFile(path, kMaxFileBytes));
  auto info = ParseCertificate(pem);
  if (!info.ok())
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", info.status().message()));
  return info;
}

absl::StatusOr<CertificateInfo> CheckCertificateFiles(const CertificateFiles& files,
                                                      absl::Time now) {
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string authority,
                              ReadSmallFile(files.authority, kMaxFileBytes));
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string pem,
                              ReadSmallFile(files.certificate, kMaxFileBytes));
  SWITCHYARD_RETURN_IF_ERROR(CheckPrivate(files.key));
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string key_pem, ReadSmallFile(files.key, kMaxFileBytes));
  const auto chain = CertificatesOf(pem);
  if (chain.empty()) return NoCertificate(files.certificate);
  X509* const certificate = chain.front().get();
  const OpensslPtr<EVP_PKEY> key = KeyOf(key_pem);
  if (key == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        files.key, " holds no private key in PEM form without passphrase: ", OpensslError()));
  }
  if (X509_check_private_key(certificate, key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(absl::StrCat(
        files.key, " is not the key of ", files.certificate, "; bring both from the same place"));
  }
  CertificateInfo info = InfoOf(certificate);
  if (now < info.not_before || now > info.not_after) {
    return absl::InvalidArgumentError(absl::StrCat(
        files.certificate, " is good from ", absl::FormatTime(info.not_before, absl::UTCTimeZone()),
        " to ", absl::FormatTime(info.not_after, absl::UTCTimeZone()),
        ", not now; set the clock, or issue a new one (switchyard-coordinator issue-server, "
        "issue-agent)"));
  }
  SWITCHYARD_RETURN_IF_ERROR(CheckIssuer(files, certificate, authority));
  return info;
}

std::string AgentUri(const std::string& node) { return absl::StrCat(kAgentPrefix, node); }

std::optional<std::string> NodeOfAgentUri(absl::string_view uri) {
  if (!absl::StartsWith(uri, kAgentPrefix) || uri.size() == kAgentPrefix.size())
    return std::nullopt;
  return std::string(uri.substr(kAgentPrefix.size()));
}

}  // namespace switchyard::security
