// The pages and /metrics of a real coordinator: TLS 1.3, and nothing without a token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "absl/strings/escaping.h"
#include "tests/coordinator/access/get_page.h"

namespace switchyard::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class PageAttack : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    coordinator_ = new SecureCoordinator();
    EXPECT_TRUE(agent::Eventually([] { return !Address().empty(); }));
  }
  static void TearDownTestSuite() {
    EXPECT_EQ(coordinator_->program().Stop(SIGTERM), 0);
    delete coordinator_;
  }
  static std::string Address() { return coordinator_->Read("state/metrics-address"); }

  static std::string Get(const std::string& path, const std::string& authorization,
                         int max_version = TLS1_3_VERSION) {
    return GetPage(*coordinator_, path, authorization, max_version);
  }
  static std::string Bearer(const std::string& role, const std::string& project) {
    return "Bearer " + coordinator_->Token(role, project);
  }

  static SecureCoordinator* coordinator_;
};
SecureCoordinator* PageAttack::coordinator_ = nullptr;

TEST_F(PageAttack, NothingIsShownWithoutATokenButThatItIsThere) {
  for (const char* path : {"/", "/metrics", "/jobs/science/j", "/assets/page.js", "/none"})
    EXPECT_THAT(Get(path, ""), StartsWith("HTTP/1.1 401")) << path;
  EXPECT_THAT(Get("/", "Bearer sy_nonsense"), StartsWith("HTTP/1.1 401"));
  EXPECT_THAT(Get("/", "Basic !!"), StartsWith("HTTP/1.1 401"));
  EXPECT_THAT(Get("/", ""), HasSubstr("WWW-Authenticate: Basic"));
  EXPECT_THAT(Get("/healthz", ""), StartsWith("HTTP/1.1 200"));
}

TEST_F(PageAttack, ATokenOpensWhatItsProjectsHold) {
  const std::string all = Bearer("viewer", "*");
  EXPECT_THAT(Get("/metrics", all), HasSubstr("switchyard_"));
  EXPECT_THAT(Get("/", all), StartsWith("HTTP/1.1 200"));
  const std::string science = Bearer("viewer", "science");
  EXPECT_THAT(Get("/jobs/science/j", science), StartsWith("HTTP/1.1 404")) << "it may know";
  for (const char* path : {"/", "/?state=ended", "/?project=science", "/assets/page.css"})
    EXPECT_THAT(Get(path, science), StartsWith("HTTP/1.1 200")) << path;
  for (const char* path :
       {"/metrics", "/none", "/jobs/art/j", "/jobs/%61rt/j", "/jobs//science/j", "/?project=art",
        "/?project=-", "/?project=%61rt", "/?project=art/jobs/science"})
    EXPECT_THAT(Get(path, science), StartsWith("HTTP/1.1 403")) << path;
  EXPECT_THAT(Get("/?project=art", science),
              HasSubstr(" may not read the page /: it needs the role viewer in project \"art\" and "
                        "has none"));
}

TEST_F(PageAttack, ABrowserSendsTheTokenAsAPassword) {
  const std::string token = coordinator_->Token("viewer", "*");
  std::string basic;
  absl::Base64Escape("anyone:" + token, &basic);
  EXPECT_THAT(Get("/", "Basic " + basic), StartsWith("HTTP/1.1 200"));
}

TEST_F(PageAttack, AnOldTlsGetsNothing) {
  EXPECT_EQ(Get("/healthz", "", TLS1_2_VERSION), "");
  EXPECT_NE(Get("/healthz", "", TLS1_3_VERSION), "");
}

TEST_F(PageAttack, ANewCertificateIsTakenWhileItServes) {
  const auto names = [] {
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    BIO* bio = BIO_new_ssl_connect(context);
    BIO_set_conn_hostname(bio, Address().c_str());
    std::string subject;
    SSL* ssl = nullptr;
    BIO_get_ssl(bio, &ssl);
    if (BIO_do_handshake(bio) == 1) {
      X509* certificate = SSL_get1_peer_certificate(ssl);
      char text[256];
      subject = X509_NAME_oneline(X509_get_subject_name(certificate), text, sizeof(text));
      X509_free(certificate);
    }
    BIO_free_all(bio);
    SSL_CTX_free(context);
    return subject;
  };
  EXPECT_THAT(names(), HasSubstr("CN=localhost"));
  ASSERT_EQ(coordinator_->Command({"issue-server", "--host", "renewed.example", "--host",
                                   "localhost", "--host", "127.0.0.1"}),
            0);
  EXPECT_TRUE(
      agent::Eventually([&] { return names().find("CN=renewed.example") != std::string::npos; }));
}

}  // namespace
}  // namespace switchyard::coordinator
