// Owners of OpenSSL's objects, readers of PEM, and OpenSSL's errors as text. For .cc files alone.
#pragma once

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace switchyard::security {

struct OpensslDelete {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(X509_EXTENSION* extension) const { X509_EXTENSION_free(extension); }
  void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  void operator()(X509_STORE_CTX* context) const { X509_STORE_CTX_free(context); }
  void operator()(BIGNUM* number) const { BN_free(number); }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};
template <typename T>
using OpensslPtr = std::unique_ptr<T, OpensslDelete>;

// The newest error of this thread; empties the queue.
inline std::string OpensslError() {
  const unsigned long code = ERR_peek_last_error();  // NOLINT: OpenSSL's type
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason == nullptr ? "unknown error" : reason;
}

inline OpensslPtr<BIO> BioOf(absl::string_view bytes) {
  return OpensslPtr<BIO>(BIO_new_mem_buf(bytes.data(), static_cast<int>(bytes.size())));
}

inline std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);  // NOLINT: OpenSSL's type
  return std::string(data, static_cast<size_t>(size));
}

// For readers of PEM: never asks for a passphrase.
inline int NoPassphrase(char*, int, int, void*) { return 0; }

// Null when it is none.
inline OpensslPtr<X509> CertificateOf(absl::string_view pem) {
  return OpensslPtr<X509>(PEM_read_bio_X509(BioOf(pem).get(), nullptr, NoPassphrase, nullptr));
}
// All of `pem`, in its order; none when one of them is broken.
inline std::vector<OpensslPtr<X509>> CertificatesOf(absl::string_view pem) {
  const OpensslPtr<BIO> in = BioOf(pem);
  std::vector<OpensslPtr<X509>> certificates;
  ERR_clear_error();
  while (auto next =
             OpensslPtr<X509>(PEM_read_bio_X509(in.get(), nullptr, NoPassphrase, nullptr))) {
    certificates.push_back(std::move(next));
  }
  // The end of the text is an error too, and not one to tell where there was something before it.
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    certificates.clear();
  } else if (!certificates.empty()) {
    ERR_clear_error();
  }
  return certificates;
}
inline OpensslPtr<EVP_PKEY> KeyOf(absl::string_view pem) {
  return OpensslPtr<EVP_PKEY>(
      PEM_read_bio_PrivateKey(BioOf(pem).get(), nullptr, NoPassphrase, nullptr));
}

}  // namespace switchyard::security
