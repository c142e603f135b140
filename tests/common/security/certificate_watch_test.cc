// Files that are replaced one by one, in any order, by what does not fit: only what does is taken.
#include "common/security/certificate_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/security/issue.h"
#include "tests/agent/support/temporary_directory.h"

namespace switchyard::security {
namespace {

using ::testing::HasSubstr;

class CertificateWatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(CreateAuthority(dir_ / "s", 3650, now_), absl::OkStatus());
    ASSERT_EQ(IssueServer(dir_ / "s", {"one.example"}, 90, now_), absl::OkStatus());
    std::filesystem::copy(dir_ / "s", dir_ / "next");
    ASSERT_EQ(IssueServer(dir_ / "next", {"two.example"}, 90, now_), absl::OkStatus());
    auto watch = CertificateWatch::Open(files_, now_);
    ASSERT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
  }
  void Bring(const std::string& name) {
    std::filesystem::rename(dir_ / ("next/" + name), dir_ / ("s/" + name));
  }
  // As it is a second after the last time, and what the log says meanwhile.
  std::shared_ptr<const CertificateBytes> Look(std::string* said) {
    now_ += absl::Seconds(1);
    testing::internal::CaptureStderr();
    auto current = watch_->Current(now_);
    *said = testing::internal::GetCapturedStderr();
    return current;
  }

  absl::Time now_ = absl::Now();
  agent::TemporaryDirectory dir_;
  const CertificateFiles files_ = CertificateFiles::In(dir_ / "s");
  std::unique_ptr<CertificateWatch> watch_;
};

TEST_F(CertificateWatchTest, WhatFitsTogetherIsTakenAndNothingElse) {
  const auto first = watch_->Current(now_);
  EXPECT_EQ(first->key, dir_.Read("s/tls.key"));
  std::string said;
  EXPECT_EQ(Look(&said), first) << "nothing changed";
  EXPECT_EQ(said, "");
  Bring("tls.key");
  EXPECT_EQ(Look(&said), first);
  EXPECT_THAT(said, HasSubstr("certificate.not_taken"));
  EXPECT_THAT(said, HasSubstr("is not the key of"));
  EXPECT_EQ(Look(&said), first);
  EXPECT_EQ(said, "") << "it was said";
  Bring("tls.crt");
  EXPECT_EQ(watch_->Current(now_), first) << "once a second";
  const auto second = Look(&said);
  EXPECT_EQ(said, "");
  EXPECT_EQ(second->certificate, dir_.Read("s/tls.crt"));
  EXPECT_EQ(second->key, dir_.Read("s/tls.key"));
  EXPECT_EQ(second->authority, dir_.Read("s/ca.crt"));
  dir_.Write("s/tls.crt", "nonsense");
  EXPECT_EQ(Look(&said), second);
  EXPECT_THAT(said, HasSubstr("no certificate in PEM form"));
  std::filesystem::remove(dir_ / "s/tls.crt");
  EXPECT_EQ(Look(&said), second);
  EXPECT_THAT(said, HasSubstr("tls.crt"));
  dir_.Write("s/tls.crt", second->certificate);
  EXPECT_EQ(Look(&said)->certificate, second->certificate);
  EXPECT_EQ(said, "");
}

TEST_F(CertificateWatchTest, WhatItsUserRefusesIsNotTakenAndSaidOnce) {
  std::string used;
  const auto use = [&used, refused = dir_.Read("next/tls.key")](const CertificateBytes& bytes) {
    used = bytes.key;
    return bytes.key == refused ? absl::InvalidArgumentError("too weak") : absl::OkStatus();
  };
  auto watch = CertificateWatch::Open(files_, now_, use);
  ASSERT_TRUE(watch.ok()) << watch.status();
  watch_ = *std::move(watch);
  const auto first = watch_->Current(now_);
  EXPECT_EQ(used, first->key);
  Bring("tls.key");
  Bring("tls.crt");
  std::string said;
  EXPECT_EQ(Look(&said), first);
  EXPECT_EQ(used, dir_.Read("s/tls.key"));
  EXPECT_THAT(said, HasSubstr("too weak"));
  EXPECT_EQ(Look(&said), first);
  EXPECT_EQ(said, "");
  EXPECT_TRUE(absl::IsFailedPrecondition(CertificateWatch::Open(files_, now_, use).status()));
}

TEST_F(CertificateWatchTest, FilesThatCannotBeUsedAreNotWatched) {
  dir_.Write("s/tls.crt", "nonsense");
  EXPECT_TRUE(absl::IsFailedPrecondition(CertificateWatch::Open(files_, now_).status()));
}

}  // namespace
}  // namespace switchyard::security
