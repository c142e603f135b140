#include "common/security/issue.h"

#include <arpa/inet.h>
#include <openssl/x509.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/durable_file.h"
#include "common/security/certificates.h"
#include "common/security/openssl_handles.h"
#include "common/security/private_file.h"
#include "common/security/token.h"
#include "common/status_macros.h"

namespace switchyard::security {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;

struct Issuer {
  X509* certificate;  // null: signs itself
  EVP_PKEY* key;
};

struct Wish {
  std::string common_name;
  std::vector<std::pair<int, std::string>> extensions;  // NID and OpenSSL's text
  int days = 0;
  absl::Time now;
};

absl::Status Failed(const char* what) {
  return absl::InternalError(absl::StrCat("cannot ", what, ": ", OpensslError()));
}

bool IsAddress(const std::string& host) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, host.c_str(), bytes) == 1 ||
         inet_pton(AF_INET6, host.c_str(), bytes) == 1;
}

bool IsDnsName(const std::string& host) {
  return !host.empty() && host.size() <= 253 && host.front() != '.' && host.front() != '-' &&
         std::all_of(host.begin(), host.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_';
         });
}

// Nothing that could end one name and begin another may pass: the text is OpenSSL's own language.
absl::Status AppendHosts(const std::vector<std::string>& hosts, std::vector<std::string>& names) {
  for (const std::string& host : hosts) {
    if (IsAddress(host)) {
      names.push_back(absl::StrCat("IP:", host));
    } else if (IsDnsName(host)) {
      names.push_back(absl::StrCat("DNS:", host));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("--host is \"", absl::CEscape(host.substr(0, 80)),
                       "\"; give a DNS name or an IP address, without port"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<OpensslPtr<X509>> Issue(const Wish& wish, EVP_PKEY* key, const Issuer& issuer) {
  OpensslPtr<X509> certificate(X509_new());
  X509* x = certificate.get();
  X509_set_version(x, 2);
  std::string serial = RandomBytes(16);
  serial[0] &= 0x7f;  // positive
  const OpensslPtr<BIGNUM> number(
      BN_bin2bn(reinterpret_cast<const unsigned char*>(serial.data()), 16, nullptr));
  BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(x));
  ASN1_TIME_set(X509_getm_notBefore(x), absl::ToTimeT(wish.now - kBackdate));
  ASN1_TIME_set(X509_getm_notAfter(x), absl::ToTimeT(wish.now + absl::Hours(24) * wish.days));
  X509_NAME* name = X509_get_subject_name(x);
  const auto add = [&](const char* field, const std::string& text) {
    return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                      reinterpret_cast<const unsigned char*>(text.data()),
                                      static_cast<int>(text.size()), -1, 0) == 1;
  };
  if (!add("O", "Switchyard") || !add("CN", wish.common_name)) return Failed("name a certificate");
  X509* parent = issuer.certificate == nullptr ? x : issuer.certificate;
  X509_set_issuer_name(x, X509_get_subject_name(parent));
  X509_set_pubkey(x, key);
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, parent, x, nullptr, nullptr, 0);
  for (const auto& [nid, text] : wish.extensions) {
    const OpensslPtr<X509_EXTENSION> extension(
        X509V3_EXT_conf_nid(nullptr, &context, nid, text.c_str()));
    if (extension == nullptr || X509_add_ext(x, extension.get(), -1) != 1)
      return Failed("extend a certificate");
  }
  if (X509_sign(x, issuer.key, EVP_sha256()) == 0) return Failed("sign a certificate");
  return certificate;
}

absl::Status WriteKey(const std::string& path, EVP_PKEY* key) {
  const OpensslPtr<BIO> out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1)
    return Failed("write a key");
  return ReplaceWholeFile(path, TextOf(out.get()), 0600);
}

absl::Status WriteCertificate(const std::string& path, X509* certificate) {
  const OpensslPtr<BIO> out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(out.get(), certificate) != 1) return Failed("write a certificate");
  return ReplaceWholeFile(path, TextOf(out.get()), 0644);
}

// A new key and certificate of the authority in `directory`, written to `files`.
absl::Status IssueLeaf(const std::string& directory, const Wish& wish,
                       const CertificateFiles& files) {
  if (wish.days < 1) {
    return absl::InvalidArgumentError(absl::StrCat("--days is ", wish.days, "; give at least 1"));
  }
  const std::string authority_path = absl::StrCat(directory, "/ca.crt");
  const std::string authority_key_path = absl::StrCat(directory, "/ca.key");
  SWITCHYARD_RETURN_IF_ERROR(CheckPrivate(authority_key_path));
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string authority_pem,
                              ReadSmallFile(authority_path, kMaxFileBytes));
  SWITCHYARD_ASSIGN_OR_RETURN(const std::string key_pem,
                              ReadSmallFile(authority_key_path, kMaxFileBytes));
  const OpensslPtr<X509> authority = CertificateOf(authority_pem);
  const OpensslPtr<EVP_PKEY> authority_key = KeyOf(key_pem);
  if (authority == nullptr || authority_key == nullptr ||
      X509_check_private_key(authority.get(), authority_key.get()) != 1) {
    return absl::InvalidArgumentError(absl::StrCat(authority_key_path,
                                                   " is not the key of the first certificate in ",
                                                   authority_path, ": ", OpensslError()));
  }
  const OpensslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("make a key");
  OpensslPtr<X509> certificate;
  SWITCHYARD_ASSIGN_OR_RETURN(certificate,
                              Issue(wish, key.get(), {authority.get(), authority_key.get()}));
  if (files.authority != authority_path)
    SWITCHYARD_RETURN_IF_ERROR(ReplaceWholeFile(files.authority, authority_pem, 0644));
  SWITCHYARD_RETURN_IF_ERROR(WriteKey(files.key, key.get()));
  return WriteCertificate(files.certificate, certificate.get());
}

}  // namespace

absl::Status CreateAuthority(const std::string& directory, int days, absl::Time now) {
  SWITCHYARD_RETURN_IF_ERROR(MakePrivateDirectory(directory));
  const std::string key_path = absl::StrCat(directory, "/ca.key");
  const std::string path = absl::StrCat(directory, "/ca.crt");
  for (const std::string& existing : {key_path, path}) {
    if (std::filesystem::exists(existing)) {
      return absl::AlreadyExistsError(
          absl::StrCat(existing,
                       " exists; everything that trusts it would be locked out by a new one. Take "
                       "another --security-dir, or issue certificates with issue-server and "
                       "issue-agent"));
    }
  }
  const OpensslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  if (key == nullptr) return Failed("make a key");
  // A name that no other has: issuers are looked for by name, and a file may hold an old and a new.
  const Wish wish{.common_name = absl::StrCat("Switchyard certificate authority ",
                                              absl::BytesToHexString(RandomBytes(8))),
                  .extensions = {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                                 {NID_key_usage, "critical,keyCertSign,cRLSign"},
                                 {NID_subject_key_identifier, "hash"}},
                  .days = days,
                  .now = now};
  OpensslPtr<X509> certificate;
  SWITCHYARD_ASSIGN_OR_RETURN(certificate, Issue(wish, key.get(), {nullptr, key.get()}));
  SWITCHYARD_RETURN_IF_ERROR(WriteKey(key_path, key.get()));
  return WriteCertificate(path, certificate.get());
}

absl::Status IssueServer(const std::string& directory, const std::vector<std::string>& hosts,
                         int days, absl::Time now) {
  std::vector<std::string> names;
  SWITCHYARD_RETURN_IF_ERROR(AppendHosts(hosts, names));
  if (names.empty()) {
    return absl::InvalidArgumentError(
        "give --host NAME, once for every name and address under which clients and agents reach "
        "the coordinator");
  }
  const Wish wish{.common_name = hosts.front().substr(0, 64),
                  .extensions = {{NID_basic_constraints, "critical,CA:FALSE"},
                                 {NID_key_usage, "critical,digitalSignature"},
                                 {NID_ext_key_usage, "serverAuth"},
                                 {NID_subject_alt_name, absl::StrJoin(names, ",")}},
                  .days = days,
                  .now = now};
  return IssueLeaf(directory, wish, CertificateFiles::In(directory));
}

absl::Status IssueAgent(const std::string& directory, const std::string& node,
                        const std::vector<std::string>& hosts, const std::string& out, int days,
                        absl::Time now) {
  if (!IsDnsName(node) || node.size() > 63) {
    return absl::InvalidArgumentError(
        absl::StrCat("--node is \"", absl::CEscape(node.substr(0, 80)),
                     "\"; give 1 to 63 letters, digits, '.', '-' or '_', as the agent's --node"));
  }
  std::vector<std::string> names = {absl::StrCat("URI:", AgentUri(node)),
                                    absl::StrCat("DNS:", node)};
  SWITCHYARD_RETURN_IF_ERROR(AppendHosts(hosts, names));
  SWITCHYARD_RETURN_IF_ERROR(MakePrivateDirectory(out));
  const Wish wish{.common_name = node,
                  .extensions = {{NID_basic_constraints, "critical,CA:FALSE"},
                                 {NID_key_usage, "critical,digitalSignature"},
                                 {NID_ext_key_usage, "clientAuth,serverAuth"},
                                 {NID_subject_alt_name, absl::StrJoin(names, ",")}},
                  .days = days,
                  .now = now};
  return IssueLeaf(directory, wish, CertificateFiles::In(out));
}

absl::Status IssueClient(const std::string& directory, const std::string& name,
                         const std::string& out, int days, absl::Time now) {
  if (!IsDnsName(name) || name.size() > 63) {
    return absl::InvalidArgumentError(
        absl::StrCat("--name is \"", absl::CEscape(name.substr(0, 80)),
                     "\"; give 1 to 63 letters, digits, '.', '-' or '_'"));
  }
  SWITCHYARD_RETURN_IF_ERROR(MakePrivateDirectory(out));
  const Wish wish{.common_name = name,
                  .extensions = {{NID_basic_constraints, "critical,CA:FALSE"},
                                 {NID_key_usage, "critical,digitalSignature"},
                                 {NID_ext_key_usage, "clientAuth"}},
                  .days = days,
                  .now = now};
  return IssueLeaf(directory, wish, CertificateFiles::In(out));
}

}  // namespace switchyard::security
