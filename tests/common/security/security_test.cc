// Tokens, certificates, revocation and allowed paths, with real files and OpenSSL's own checks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "common/security/allowed_paths.h"
#include "common/security/certificates.h"
#include "common/security/issue.h"
#include "common/security/private_file.h"
#include "common/security/revoked_nodes.h"
#include "common/security/token.h"
#include "common/security/token_store.h"
#include "tests/agent/support/temporary_directory.h"

namespace switchyard::security {
namespace {

using agent::TemporaryDirectory;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

std::string Message(const absl::Status& status) { return std::string(status.message()); }

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

NewTokenRequest Request(const std::string& project, Role role) {
  return {.name = "someone",
          .grants = {{project, role}},
          .expire_time = kNow + absl::Hours(1),
          .creator = "init"};
}

TEST(Token, HasTheFormThatIsReadBack) {
  const TokenText token = NewToken();
  const auto parsed = ParseToken(token.Text());
  ASSERT_TRUE(parsed.has_value()) << token.Text();
  EXPECT_EQ(parsed->id, token.id);
  EXPECT_EQ(parsed->secret, token.secret);
  EXPECT_NE(NewToken().Text(), token.Text());
}

TEST(Token, OfAnotherFormIsRefused) {
  const std::string good = NewToken().Text();
  for (const std::string& bad :
       {std::string(), std::string("sy_"), good + "x", good.substr(1), "xx" + good.substr(2),
        good.substr(0, 20) + std::string(1, '\0') + good.substr(21), " " + good.substr(1)}) {
    EXPECT_FALSE(ParseToken(bad).has_value()) << bad;
  }
}

TEST(Token, BearerSchemeIsReadInAnyCase) {
  EXPECT_EQ(BearerOf("Bearer abc"), absl::string_view("abc"));
  EXPECT_EQ(BearerOf("bearer  abc "), absl::string_view("abc"));
  EXPECT_FALSE(BearerOf("Basic abc").has_value());
  EXPECT_FALSE(BearerOf("Bearer").has_value());
}

TEST(TokenStore, KeepsHashesAndNeverASecret) {
  TemporaryDirectory dir;
  auto store = TokenStore::Open(dir / "tokens.json");
  ASSERT_TRUE(store.ok()) << store.status();
  const auto created = (*store)->Create(Request("science", Role::kSubmitter), kNow);
  ASSERT_TRUE(created.ok()) << created.status();
  const std::string file = dir.Read("tokens.json");
  EXPECT_THAT(file, HasSubstr(created->record.id));
  EXPECT_THAT(file, Not(HasSubstr(ParseToken(created->text)->secret)));
  EXPECT_EQ(ModeOf(dir / "tokens.json"), 0600u);
  // Another process, later.
  auto again = TokenStore::Open(dir / "tokens.json");
  ASSERT_TRUE(again.ok());
  const auto caller = (*again)->Verify(created->text, kNow);
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->id, created->record.id);
  EXPECT_EQ(caller->RoleIn("science"), Role::kSubmitter);
  EXPECT_EQ(caller->RoleIn("art"), Role::kNone);
  EXPECT_EQ(caller->RoleIn("*"), Role::kNone);
}

TEST(TokenStore, RefusesAnUnknownAnAlteredAnExpiredAndARevokedToken) {
  TemporaryDirectory dir;
  auto store = TokenStore::Open(dir / "tokens.json");
  ASSERT_TRUE(store.ok());
  const auto created = (*store)->Create(Request("*", Role::kAdmin), kNow);
  ASSERT_TRUE(created.ok());
  EXPECT_TRUE(absl::IsUnauthenticated((*store)->Verify(NewToken().Text(), kNow).status()));
  std::string altered = created->text;
  altered[30] = altered[30] == 'A' ? 'B' : 'A';
  EXPECT_TRUE(absl::IsUnauthenticated((*store)->Verify(altered, kNow).status()));
  EXPECT_THAT(Message((*store)->Verify(created->text, kNow + absl::Hours(2)).status()),
              HasSubstr("expired at"));
  // What is known of a token is told only to who has its secret.
  EXPECT_THAT(Message((*store)->Verify(altered, kNow + absl::Hours(2)).status()),
              Not(HasSubstr("expired")));
  // Revoked by another process: the next call notices.
  auto other = TokenStore::Open(dir / "tokens.json");
  ASSERT_TRUE((*other)->Revoke(created->record.id, kNow).ok());
  EXPECT_THAT(Message((*store)->Verify(created->text, kNow).status()), HasSubstr("was revoked at"));
  EXPECT_TRUE((*other)->Revoke(created->record.id, kNow).ok()) << "revoking twice is no error";
  EXPECT_TRUE(absl::IsNotFound((*other)->Revoke("nobody", kNow).status()));
}

TEST(TokenStore, AFileThatOthersMayReadOrThatIsDamagedIsNotUsed) {
  TemporaryDirectory dir;
  const std::string path = dir.Write("tokens.json", R"({"version": 1, "tokens": []})");
  chmod(path.c_str(), 0644);
  EXPECT_THAT(Message(TokenStore::Open(path).status()), HasSubstr("chmod 600"));
  chmod(path.c_str(), 0600);
  EXPECT_TRUE(TokenStore::Open(path).ok());
  for (const char* text : {"", "[]", "{\"version\": 2}", R"({"version":1,"tokens":[{"id":3}]})"}) {
    dir.Write("tokens.json", text);
    EXPECT_TRUE(absl::IsDataLoss(TokenStore::Open(path).status())) << text;
  }
}

TEST(TokenStore, RefusesGrantsThatSayNothing) {
  TemporaryDirectory dir;
  auto store = TokenStore::Open(dir / "tokens.json");
  NewTokenRequest request = Request("science", Role::kViewer);
  request.grants.clear();
  EXPECT_THAT(Message((*store)->Create(request, kNow).status()), HasSubstr("grants: there are 0"));
  request = Request("science", Role::kViewer);
  request.expire_time = kNow;
  EXPECT_THAT(Message((*store)->Create(request, kNow).status()), HasSubstr("has passed"));
  request = Request("science", Role::kViewer);
  request.name = "line\nbreak";
  EXPECT_THAT(Message((*store)->Create(request, kNow).status()), HasSubstr("display_name"));
}

class Certificates : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(CreateAuthority(dir_ / "s", 3650, absl::Now()), absl::OkStatus());
    ASSERT_EQ(IssueServer(dir_ / "s", {"coordinator.example", "10.0.0.1"}, 90, absl::Now()),
              absl::OkStatus());
  }
  TemporaryDirectory dir_;
};

TEST_F(Certificates, AreGoodAndTheirKeysPrivate) {
  const auto info = CheckCertificateFiles(CertificateFiles::In(dir_ / "s"), absl::Now());
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_THAT(info->hosts, ElementsAre("coordinator.example", "10.0.0.1"));
  EXPECT_EQ(ModeOf(dir_ / "s"), 0700u);
  EXPECT_EQ(ModeOf(dir_ / "s/ca.key"), 0600u);
  EXPECT_EQ(ModeOf(dir_ / "s/tls.key"), 0600u);
}

TEST_F(Certificates, OfAnAgentNameItsNode) {
  ASSERT_EQ(IssueAgent(dir_ / "s", "gpu-1", {}, dir_ / "gpu-1", 90, absl::Now()), absl::OkStatus());
  const auto info = CheckCertificateFiles(CertificateFiles::In(dir_ / "gpu-1"), absl::Now());
  ASSERT_TRUE(info.ok()) << info.status();
  ASSERT_THAT(info->uris, ElementsAre("spiffe://switchyard/agent/gpu-1"));
  EXPECT_EQ(NodeOfAgentUri(info->uris[0]), "gpu-1");
  EXPECT_FALSE(NodeOfAgentUri("spiffe://elsewhere/agent/gpu-1").has_value());
  EXPECT_FALSE(std::filesystem::exists(dir_ / "gpu-1/ca.key"));
}

TEST_F(Certificates, AnExistingAuthorityIsNeverReplaced) {
  const std::string before = dir_.Read("s/ca.crt");
  EXPECT_TRUE(absl::IsAlreadyExists(CreateAuthority(dir_ / "s", 10, absl::Now())));
  EXPECT_EQ(dir_.Read("s/ca.crt"), before);
}

TEST_F(Certificates, WhatDoesNotFitTogetherIsSaidWithTheFix) {
  ASSERT_EQ(CreateAuthority(dir_ / "other", 10, absl::Now()), absl::OkStatus());
  ASSERT_EQ(IssueServer(dir_ / "other", {"x"}, 10, absl::Now()), absl::OkStatus());
  CertificateFiles files = CertificateFiles::In(dir_ / "s");
  files.key = dir_ / "other/tls.key";
  EXPECT_THAT(Message(CheckCertificateFiles(files, absl::Now()).status()),
              HasSubstr("is not the key of"));
  files = CertificateFiles::In(dir_ / "s");
  files.authority = dir_ / "other/ca.crt";
  EXPECT_THAT(Message(CheckCertificateFiles(files, absl::Now()).status()),
              HasSubstr("is not a good certificate of"));
  files = CertificateFiles::In(dir_ / "s");
  EXPECT_THAT(Message(CheckCertificateFiles(files, absl::Now() + absl::Hours(24 * 91)).status()),
              HasSubstr("issue a new one"));
  chmod(files.key.c_str(), 0640);
  EXPECT_THAT(Message(CheckCertificateFiles(files, absl::Now()).status()), HasSubstr("chmod 600"));
}

TEST_F(Certificates, AreGoodByAnyAuthorityOfTheFile) {
  ASSERT_EQ(CreateAuthority(dir_ / "other", 10, absl::Now()), absl::OkStatus());
  ASSERT_EQ(IssueServer(dir_ / "other", {"x"}, 10, absl::Now()), absl::OkStatus());
  const std::string one = dir_.Read("s/ca.crt");
  const std::string other = dir_.Read("other/ca.crt");
  for (const std::string& both : {one + other, other + one}) {
    for (const char* name : {"s", "other"}) {
      CertificateFiles files = CertificateFiles::In(dir_ / name);
      files.authority = dir_.Write("both.crt", both);
      EXPECT_EQ(CheckCertificateFiles(files, absl::Now()).status(), absl::OkStatus());
    }
  }
}

TEST_F(Certificates, AllThatAFileHoldsAreLookedAt) {
  const CertificateFiles files = CertificateFiles::In(dir_ / "s");
  const std::string authority = dir_.Read("s/ca.crt");
  const std::string certificate = dir_.Read("s/tls.crt");
  const std::string broken =
      "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n";
  const std::string cut = certificate.substr(0, certificate.size() / 2);
  for (const std::string& end : {broken, cut}) {
    dir_.Write("s/tls.crt", certificate + end);
    EXPECT_THAT(Message(CheckCertificateFiles(files, absl::Now()).status()),
                HasSubstr("s/tls.crt holds what is no certificate in PEM form"));
    dir_.Write("s/tls.crt", certificate + authority + "and a remark\n");
    EXPECT_TRUE(CheckCertificateFiles(files, absl::Now()).ok());
    dir_.Write("s/ca.crt", authority + end);
    EXPECT_THAT(Message(CheckCertificateFiles(files, absl::Now()).status()),
                HasSubstr("s/ca.crt holds what is no certificate in PEM form"));
    dir_.Write("s/ca.crt", authority);
  }
}

TEST_F(Certificates, NamesThatWouldSmuggleOthersInAreRefused) {
  for (const char* host : {"a,DNS:b", "a b", "", "http://a", "a:443"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(IssueServer(dir_ / "s", {host}, 90, absl::Now()))) << host;
    EXPECT_TRUE(
        absl::IsInvalidArgument(IssueAgent(dir_ / "s", host, {}, dir_ / "n", 90, absl::Now())))
        << host;
  }
}

TEST_F(Certificates, OfARevokedNodeAreRefusedUntilANewOneIsIssued) {
  const std::string path = dir_ / "revoked_nodes.json";
  RevokedNodes revoked(path);
  ASSERT_EQ(IssueAgent(dir_ / "s", "n", {}, dir_ / "n", 90, absl::Now()), absl::OkStatus());
  const auto first = ReadCertificate(dir_ / "n/tls.crt");
  EXPECT_EQ(revoked.Check("n", first->not_before), absl::OkStatus());
  ASSERT_EQ(RevokedNodes::Revoke(path, "n", absl::Now()), absl::OkStatus());
  EXPECT_THAT(Message(revoked.Check("n", first->not_before)), HasSubstr("was revoked at"));
  EXPECT_EQ(revoked.Check("m", first->not_before), absl::OkStatus());
  ASSERT_EQ(IssueAgent(dir_ / "s", "n", {}, dir_ / "n", 90, absl::Now()), absl::OkStatus());
  EXPECT_EQ(revoked.Check("n", ReadCertificate(dir_ / "n/tls.crt")->not_before), absl::OkStatus());
  dir_.Write("revoked_nodes.json", "nonsense");
  EXPECT_TRUE(absl::IsDataLoss(revoked.Check("m", first->not_before)))
      << "a damaged file lets nobody in";
}

class Paths : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_.Write("data/a/train.jsonl", "{}");
    dir_.Write("secret/key", "s");
    allowed_ = AllowedPaths("data", {dir_ / "data"});
  }
  bool Allows(const std::string& path) { return allowed_.Check(path).ok(); }

  TemporaryDirectory dir_;
  AllowedPaths allowed_;
};

TEST_F(Paths, BeneathARootAreAllowedWhetherTheyExistOrNot) {
  EXPECT_TRUE(Allows(dir_ / "data/a/train.jsonl"));
  EXPECT_TRUE(Allows(dir_ / "data"));
  EXPECT_TRUE(Allows(dir_ / "data/new/deep/output"));
  EXPECT_TRUE(Allows(dir_ / "data//a/./train.jsonl"));
}

TEST_F(Paths, ElsewhereAreRefusedWithTheRootsNamed) {
  EXPECT_THAT(Message(allowed_.Check("/etc/passwd")), HasSubstr(dir_ / "data"));
  EXPECT_FALSE(Allows(dir_ / "secret/key"));
  EXPECT_FALSE(Allows(dir_ / "data-of-others/x")) << "a prefix of a name is no directory";
  EXPECT_FALSE(Allows(dir_ / "data/../secret/key"));
  EXPECT_FALSE(Allows(dir_ / "data/new/../../secret/key"));
  EXPECT_FALSE(Allows("data/a"));
  EXPECT_FALSE(Allows(std::string(dir_ / "data/a") + '\0' + "/../../secret"));
  EXPECT_FALSE(Allows(""));
}

TEST_F(Paths, LinksThatLeadOutAreRefusedAndThoseThatStayInsideAreNot) {
  ASSERT_EQ(symlink((dir_ / "secret").c_str(), (dir_ / "data/out").c_str()), 0);
  ASSERT_EQ(symlink("../secret/key", (dir_ / "data/up").c_str()), 0);
  ASSERT_EQ(symlink("/proc/self/root", (dir_ / "data/magic").c_str()), 0);
  ASSERT_EQ(symlink((dir_ / "nowhere").c_str(), (dir_ / "data/dangling").c_str()), 0);
  ASSERT_EQ(symlink("a/train.jsonl", (dir_ / "data/in").c_str()), 0);
  EXPECT_FALSE(Allows(dir_ / "data/out/key"));
  EXPECT_FALSE(Allows(dir_ / "data/out/new"));
  EXPECT_FALSE(Allows(dir_ / "data/up"));
  EXPECT_FALSE(Allows(dir_ / "data/magic/etc/passwd"));
  EXPECT_FALSE(Allows(dir_ / "data/dangling"));
  EXPECT_TRUE(Allows(dir_ / "data/in"));
}

TEST_F(Paths, WithoutRootsEverythingIsAllowedAndHalfAPolicyIsRefused) {
  EXPECT_TRUE(PathPolicy::Create({}, {}, {})->data.Check("/etc/passwd").ok());
  const auto half = PathPolicy::Create({dir_ / "data"}, {}, {dir_ / "data"});
  EXPECT_THAT(Message(half.status()), HasSubstr("--data-root is missing"));
  const auto missing = PathPolicy::Create({dir_ / "data"}, {"data"}, {dir_ / "data"});
  EXPECT_THAT(Message(missing.status()), HasSubstr("--data-root is \"data\""));
}

TEST(PrivateFile, MayBeReadByItsGroupOnlyWhenItIsRootsAndThisIsNotRoot) {
  const auto file = [](uid_t owner, mode_t mode) {
    struct stat info {};
    info.st_uid = owner;
    info.st_mode = S_IFREG | mode;
    return info;
  };
  EXPECT_TRUE(IsPrivate(file(1000, 0600), 1000));
  EXPECT_FALSE(IsPrivate(file(1000, 0640), 1000));
  EXPECT_FALSE(IsPrivate(file(1000, 0640), 1001));
  EXPECT_TRUE(IsPrivate(file(0, 0440), 10001));
  EXPECT_FALSE(IsPrivate(file(0, 0460), 10001));
  EXPECT_FALSE(IsPrivate(file(0, 0444), 10001));
  EXPECT_FALSE(IsPrivate(file(0, 0440), 0));
}

TEST(PrivateFile, IsReplacedWholeWithItsMode) {
  TemporaryDirectory dir;
  const std::string path = dir.Write("secret", "old");
  ASSERT_EQ(ReplaceWholeFile(path, "new", 0600), absl::OkStatus());
  EXPECT_EQ(dir.Read("secret"), "new");
  EXPECT_EQ(ModeOf(path), 0600u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

}  // namespace
}  // namespace switchyard::security
