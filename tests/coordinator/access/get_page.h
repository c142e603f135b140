// Reads the pages of a real coordinator with OpenSSL alone, so that the client may be as old as it
// likes.
#pragma once

#include <openssl/ssl.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "tests/coordinator/access/secure_coordinator.h"

namespace switchyard::coordinator {

// The whole answer; empty when there is no handshake. `authorization` is a header's value; empty
// for none.
inline std::string GetPage(const SecureCoordinator& coordinator, const std::string& path,
                           const std::string& authorization, int max_version = TLS1_3_VERSION) {
  const std::string address = coordinator.Read("state/metrics-address");
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_max_proto_version(context, max_version);
  SSL_CTX_load_verify_locations(context, (coordinator.security() + "/ca.crt").c_str(), nullptr);
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  BIO* bio = BIO_new_ssl_connect(context);
  BIO_set_conn_hostname(bio, address.c_str());
  std::string answer;
  if (BIO_do_handshake(bio) == 1) {
    const std::string header =
        authorization.empty() ? "" : absl::StrCat("Authorization: ", authorization, "\r\n");
    const std::string request =
        absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: ", address, "\r\n", header, "\r\n");
    BIO_write(bio, request.data(), static_cast<int>(request.size()));
    char buffer[4096];
    for (int n; (n = BIO_read(bio, buffer, sizeof(buffer))) > 0;)
      answer.append(buffer, static_cast<size_t>(n));
  }
  BIO_free_all(bio);
  SSL_CTX_free(context);
  return answer;
}

}  // namespace switchyard::coordinator
