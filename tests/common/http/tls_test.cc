// Handshakes with a server whose certificates are replaced while it serves.
#include "common/http/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <filesystem>
#include <string>

#include "common/security/issue.h"
#include "common/security/openssl_handles.h"
#include "common/unique_fd.h"
#include "tests/agent/support/temporary_directory.h"

namespace switchyard::http {
namespace {

using security::CertificateFiles;
using ::testing::HasSubstr;

class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const absl::Time now = absl::Now();
    ASSERT_EQ(security::CreateAuthority(dir_ / "s", 3650, now), absl::OkStatus());
    ASSERT_EQ(security::IssueServer(dir_ / "s", {"one.example"}, 90, now), absl::OkStatus());
    std::filesystem::copy(dir_ / "s", dir_ / "next");
    ASSERT_EQ(security::IssueServer(dir_ / "next", {"two.example"}, 90, now), absl::OkStatus());
  }
  void Serve(bool require_client) {
    auto tls = TlsContext::Create(CertificateFiles::In(dir_ / "s"), require_client);
    ASSERT_TRUE(tls.ok()) << tls.status();
    tls_ = *std::move(tls);
    now_ = absl::Now();
  }
  void Bring(const std::string& name) {
    std::filesystem::rename(dir_ / ("next/" + name), dir_ / ("s/" + name));
  }
  // The certificate, in PEM, that a client gets a second after the last one came, "" when it is not
  // let in; `said` is what the log says meanwhile.
  std::string Connect(SSL_CTX* options = nullptr) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    const UniqueFd here(ends[0]);
    const UniqueFd there(ends[1]);
    const std::unique_ptr<SSL_CTX, SslDelete> plain(SSL_CTX_new(TLS_client_method()));
    const SslPtr client(SSL_new(options == nullptr ? plain.get() : options));
    SSL_set_fd(client.get(), here.get());
    SSL_set_connect_state(client.get());
    now_ += absl::Seconds(1);
    testing::internal::CaptureStderr();
    const SslPtr server = tls_->Start(there.get(), now_);
    said_ = testing::internal::GetCapturedStderr();
    int accepted = 0;
    for (int flight = 0; flight < 4 && accepted != 1; ++flight) {
      SSL_do_handshake(client.get());
      accepted = SSL_do_handshake(server.get());
    }
    ERR_clear_error();
    chain_ = sk_X509_num(SSL_get_peer_cert_chain(client.get()));
    const security::OpensslPtr<X509> shown(SSL_get_peer_certificate(client.get()));
    const security::OpensslPtr<BIO> out(BIO_new(BIO_s_mem()));
    if (accepted == 1) PEM_write_bio_X509(out.get(), shown.get());
    return security::TextOf(out.get());
  }

  agent::TemporaryDirectory dir_;
  std::unique_ptr<TlsContext> tls_;
  absl::Time now_;
  std::string said_;
  int chain_ = 0;  // of how many certificates
};

TEST_F(TlsTest, ANewPairIsServedWithoutARestartAndOneThatDoesNotFitIsSaidOnce) {
  Serve(/*require_client=*/false);
  const std::string first = dir_.Read("s/tls.crt");
  EXPECT_EQ(Connect(), first);
  EXPECT_EQ(said_, "");
  Bring("tls.key");
  EXPECT_EQ(Connect(), first);
  EXPECT_THAT(said_, HasSubstr("certificate.not_taken"));
  EXPECT_THAT(said_, HasSubstr("is not the key of"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Connect(), first);
    EXPECT_EQ(said_, "") << "it was said";
  }
  Bring("tls.crt");
  const std::string second = dir_.Read("s/tls.crt");
  EXPECT_EQ(Connect(), second);
  EXPECT_EQ(said_, "");
  EXPECT_NE(second, first);
}

TEST_F(TlsTest, TheWholeChainIsServed) {
  Serve(/*require_client=*/false);
  const std::string leaf = dir_.Read("s/tls.crt");
  dir_.Write("s/tls.crt", leaf + dir_.Read("s/ca.crt") + dir_.Read("next/tls.crt"));
  EXPECT_EQ(Connect(), leaf);
  EXPECT_EQ(said_, "");
  EXPECT_EQ(chain_, 3);
}

TEST_F(TlsTest, ClientsOfEveryAuthorityInTheFileAreLetInAndNoOthers) {
  Serve(/*require_client=*/true);
  const std::string server = dir_.Read("s/tls.crt");
  EXPECT_EQ(Connect(), "") << "shows none";
  ASSERT_EQ(security::CreateAuthority(dir_ / "new", 10, absl::Now()), absl::OkStatus());
  for (const char* authority : {"s", "new"}) {
    const std::string out = dir_ / ("client-of-" + std::string(authority));
    ASSERT_EQ(security::IssueClient(dir_ / authority, "c", out, 10, absl::Now()), absl::OkStatus());
  }
  const auto connect_as = [this](const std::string& name) {
    const CertificateFiles files = CertificateFiles::In(dir_ / name);
    const std::unique_ptr<SSL_CTX, SslDelete> options(SSL_CTX_new(TLS_client_method()));
    SSL_CTX_use_certificate_chain_file(options.get(), files.certificate.c_str());
    SSL_CTX_use_PrivateKey_file(options.get(), files.key.c_str(), SSL_FILETYPE_PEM);
    return Connect(options.get());
  };
  EXPECT_EQ(connect_as("client-of-s"), server);
  EXPECT_EQ(connect_as("client-of-new"), "");
  dir_.Write("s/ca.crt", dir_.Read("s/ca.crt") + dir_.Read("new/ca.crt"));
  EXPECT_EQ(connect_as("client-of-new"), server) << said_;
  EXPECT_EQ(connect_as("client-of-s"), server);
}

TEST_F(TlsTest, FilesThatCannotBeUsedAreNotServed) {
  Bring("tls.key");
  EXPECT_TRUE(absl::IsFailedPrecondition(
      TlsContext::Create(CertificateFiles::In(dir_ / "s"), false).status()));
}

}  // namespace
}  // namespace switchyard::http
