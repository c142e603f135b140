// The client and the cache against an API server with troubles, over real HTTPS.
#include "coordinator/kubernetes/client.h"

#include <cstdlib>
#include <fstream>

#include "coordinator/kubernetes/object_cache.h"
#include "tests/coordinator/kubernetes/kubernetes_fixture.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class KubernetesClientTest : public KubernetesFixture {
 protected:
  void SetUp() override {
    KubernetesFixture::SetUp();
    client_ = std::make_unique<KubernetesClient>(server_->ClientOptions());
  }
  void TearDown() override {
    client_.reset();
    KubernetesFixture::TearDown();
  }
  std::string MessageOfGet() { return std::string(client_->Get(jobs_, "a").status().message()); }

  std::unique_ptr<KubernetesClient> client_;
};

Json Labelled(const std::string& store) { return {{"metadata", {{"labels", {{"store", store}}}}}}; }

TEST_F(KubernetesClientTest, AListIsReadPageByPage) {
  for (const char* name : {"a", "b", "c", "d", "e"}) server_->Put("jobs", name, Labelled("mine"));
  server_->Put("jobs", "foreign", Labelled("yours"));
  server_->SetPageSize(2);
  const auto list = client_->List(jobs_, "store=mine");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->items.size(), 5u);
  EXPECT_FALSE(list->resource_version.empty());
  EXPECT_EQ(server_->Count("GET", "/apis/batch/v1/namespaces/ns/jobs?"), 3);
}

TEST_F(KubernetesClientTest, TooManyRequestsIsWaitedForAsTheServerSays) {
  server_->Put("jobs", "a", {});
  server_->Give({"GET", "/jobs/a", 429, /*retry_after=*/"1"});
  const absl::Time begun = absl::Now();
  EXPECT_TRUE(client_->Get(jobs_, "a").ok());
  EXPECT_GE(absl::Now() - begun, absl::Seconds(1));
  EXPECT_EQ(server_->Count("GET", "/jobs/a"), 2);
}

TEST_F(KubernetesClientTest, ACallThatGivesUpLeavesTheServerItsQuiet) {
  KubernetesClient::Options options = server_->ClientOptions();
  options.patience = absl::Milliseconds(100);
  KubernetesClient impatient(options);
  server_->Put("jobs", "a", {});
  server_->Give({"GET", "/jobs/a", 429, /*retry_after=*/"1"});
  const absl::Time begun = absl::Now();
  EXPECT_TRUE(absl::IsUnavailable(impatient.Get(jobs_, "a").status()));
  EXPECT_LT(absl::Now() - begun, absl::Milliseconds(900));
  EXPECT_TRUE(impatient.Get(jobs_, "a").ok());
  EXPECT_GE(absl::Now() - begun, absl::Seconds(1));
}

TEST_F(KubernetesClientTest, ErrorsOfTheServerAreTriedAgainAndThenTold) {
  server_->Put("jobs", "a", {});
  server_->Give({"GET", "/jobs/a", 503, "", false, "etcd leader changed", 2});
  EXPECT_TRUE(client_->Get(jobs_, "a").ok());
  KubernetesClient::Options options = server_->ClientOptions();
  options.patience = absl::Milliseconds(100);
  client_ = std::make_unique<KubernetesClient>(options);
  server_->Give({"GET", "/jobs/a", 500, "", false, "disk full", 100});
  const absl::Status status = client_->Get(jobs_, "a").status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("GET /apis/batch/v1/namespaces/ns/jobs/a"), HasSubstr("500"),
                    HasSubstr("disk full")));
}

TEST_F(KubernetesClientTest, ATokenThatWasReplacedIsReadAgain) {
  server_->Put("jobs", "a", {});
  ASSERT_TRUE(client_->Get(jobs_, "a").ok());
  server_->Accept({"second"});
  server_->WriteToken("second");  // within the minute: found by the refusal
  EXPECT_TRUE(client_->Get(jobs_, "a").ok());
  EXPECT_EQ(server_->Count("GET", "/jobs/a"), 3);
  server_->Accept({"third"});
  EXPECT_TRUE(absl::IsUnauthenticated(client_->Get(jobs_, "a").status()));
  EXPECT_THAT(MessageOfGet(), HasSubstr(root_ + "/token"));
}

TEST(TokenFileTest, ATokenIsReadAgainEveryMinute) {
  std::string path = testing::TempDir() + "/token.XXXXXX";
  close(mkstemp(path.data()));
  std::ofstream(path) << "one\n";
  TokenFile file(path);
  const absl::Time now = absl::Now();
  EXPECT_EQ(*file.Get(now), "one");
  std::ofstream(path) << "two\n";
  EXPECT_EQ(*file.Get(now + absl::Seconds(59)), "one");
  EXPECT_EQ(*file.Get(now + absl::Seconds(61)), "two");
  std::filesystem::remove(path);
  EXPECT_EQ(*file.Get(now + absl::Minutes(3)), "two");  // while it is being replaced
}

TEST_F(KubernetesClientTest, AMissingRightIsNamed) {
  server_->Give({"GET", "/jobs/a", 403, "", false, "jobs.batch \"a\" is forbidden"});
  const absl::Status status = client_->Get(jobs_, "a").status();
  EXPECT_TRUE(absl::IsPermissionDenied(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("is forbidden"), HasSubstr("namespace ns"), HasSubstr("\"get\""),
                    HasSubstr("\"jobs\""), HasSubstr("\"batch\"")));
  server_->Forbid({"create jobs", "watch pods"});
  const auto missing =
      client_->MissingRights({{"create", jobs_}, {"list", jobs_}, {"watch", {"", "pods", "ns"}}});
  ASSERT_TRUE(missing.ok()) << missing.status();
  EXPECT_THAT(*missing, ElementsAre("create jobs.batch", "watch pods"));
}

TEST_F(KubernetesClientTest, StrictFieldsAreAskedForWhereTheServerKnowsThem) {
  const Json job = {{"metadata", {{"name", "a"}}}};
  ASSERT_TRUE(client_->Create(jobs_, job).ok());
  EXPECT_EQ(server_->Count("POST", "fieldValidation"), 0);
  EXPECT_TRUE(absl::IsAlreadyExists(client_->Create(jobs_, job).status()));
  server_->SetMinor(30);
  KubernetesClient newer(server_->ClientOptions());
  ASSERT_TRUE(newer.Create(jobs_, {{"metadata", {{"name", "b"}}}}).ok());
  EXPECT_EQ(server_->Count("POST", "/jobs?fieldValidation=Strict"), 1);
}

TEST_F(KubernetesClientTest, OnlyTheObjectOfTheUidIsDeleted) {
  server_->Put("jobs", "a", {});
  EXPECT_TRUE(absl::IsAborted(client_->Delete(jobs_, "a", "another")));
  EXPECT_TRUE(server_->Has("jobs", "a"));
  EXPECT_TRUE(
      client_->Delete(jobs_, "a", TextAt(server_->Find("jobs", "a"), {"metadata", "uid"})).ok());
  EXPECT_FALSE(server_->Has("jobs", "a"));
  EXPECT_EQ(TextAt(server_->Bodies("DELETE", "/jobs/a")[0], {"propagationPolicy"}), "Foreground");
}

TEST_F(KubernetesClientTest, AServerThatTheAuthorityDoesNotVouchForGetsNoToken) {
  const std::string other = root_ + "/other";
  std::filesystem::create_directory(other);
  const FakeApiServer foreign(other);
  KubernetesClient::Options options = foreign.ClientOptions();
  options.access.ca_file = root_ + "/ca.crt";
  options.patience = absl::ZeroDuration();
  KubernetesClient client(options);
  const absl::Status status = client.Get(jobs_, "a").status();
  EXPECT_TRUE(absl::IsUnavailable(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("certificate"));
  EXPECT_EQ(foreign.Count("GET"), 0);
}

TEST_F(KubernetesClientTest, AServerThatDoesNotAnswerIsGivenUpAndStopEndsAllWaiting) {
  KubernetesClient::Options options = server_->ClientOptions();
  options.access.url = "https://127.0.0.1:1";
  options.patience = absl::Milliseconds(50);
  KubernetesClient nobody(options);
  EXPECT_TRUE(absl::IsUnavailable(nobody.Get(jobs_, "a").status()));
  std::thread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    client_->Stop();
  });
  const absl::Time begun = absl::Now();
  const absl::Status watch = client_->Watch(
      jobs_, "a=b", "100", [](const std::string&, const Json&) { return absl::OkStatus(); });
  stopper.join();
  EXPECT_TRUE(absl::IsCancelled(watch)) << watch;
  EXPECT_LT(absl::Now() - begun, absl::Seconds(5));
  EXPECT_TRUE(absl::IsCancelled(client_->Get(jobs_, "a").status()));
}

TEST_F(KubernetesClientTest, APodFindsItsServerAndOthersAreToldWhatToGive) {
  launch::v1::KubernetesConfig config;
  unsetenv("KUBERNETES_SERVICE_HOST");
  EXPECT_THAT(std::string(FindApiServer(config, root_).status().message()),
              HasSubstr("api_server"));
  setenv("KUBERNETES_SERVICE_HOST", "fd00::1", 1);
  setenv("KUBERNETES_SERVICE_PORT", "443", 1);
  EXPECT_THAT(std::string(FindApiServer(config, root_).status().message()),
              HasSubstr("/namespace"));
  std::ofstream(root_ + "/namespace") << "own";
  const auto access = FindApiServer(config, root_);
  ASSERT_TRUE(access.ok()) << access.status();
  EXPECT_EQ(access->url, "https://[fd00::1]:443");
  EXPECT_EQ(access->namespace_, "own");
  unsetenv("KUBERNETES_SERVICE_HOST");
}

class ObjectCacheTest : public KubernetesFixture {
 protected:
  void Start() {
    cache_ = std::make_unique<ObjectCache>(server_->ClientOptions(), jobs_, "store=mine",
                                           [this] { ++changes_; });
  }
  void TearDown() override {
    cache_.reset();
    KubernetesFixture::TearDown();
  }
  bool WaitForNames(const std::vector<std::string>& names) {
    return Wait([&] {
      std::vector<std::string> seen;
      for (const auto& [name, object] : cache_->Get()) seen.push_back(name);
      return cache_->status() == absl::OkStatus() && seen == names;
    });
  }
  int Lists() { return server_->Count("GET", "limit="); }
  int Watches() { return server_->Count("GET", "watch=true"); }

  std::atomic<int> changes_{0};
  std::unique_ptr<ObjectCache> cache_;
};

TEST_F(ObjectCacheTest, ItListsOnceAndThenHearsOfEveryChange) {
  server_->Put("jobs", "a", Labelled("mine"));
  server_->Put("jobs", "foreign", Labelled("yours"));
  Start();
  ASSERT_TRUE(WaitForNames({"a"}));
  server_->Put("jobs", "b", Labelled("mine"));
  ASSERT_TRUE(WaitForNames({"a", "b"}));
  server_->Remove("jobs", "a");
  ASSERT_TRUE(WaitForNames({"b"}));
  EXPECT_GE(changes_, 3);
  server_->EndWatches();
  ASSERT_TRUE(Wait([&] { return Watches() == 2; }));
  server_->Put("jobs", "c", Labelled("mine"));
  ASSERT_TRUE(WaitForNames({"b", "c"}));
  EXPECT_EQ(Lists(), 1);
}

TEST_F(ObjectCacheTest, AVersionThatIsTooOldIsListedAnew) {
  server_->Put("jobs", "a", Labelled("mine"));
  Start();
  ASSERT_TRUE(WaitForNames({"a"}));
  ASSERT_TRUE(Wait([&] { return Watches() == 1; }));
  server_->Forget();  // within the stream
  server_->Put("jobs", "b", Labelled("mine"));
  ASSERT_TRUE(WaitForNames({"a", "b"}));
  EXPECT_EQ(Lists(), 2);
  ASSERT_TRUE(Wait([&] { return Watches() == 2; }));
  server_->Give({"GET", "watch=true", 410, "", false, "too old resource version"});
  server_->EndWatches();  // and as the answer to the next
  server_->Put("jobs", "c", Labelled("mine"));
  ASSERT_TRUE(WaitForNames({"a", "b", "c"}));
  ASSERT_TRUE(Wait([&] { return Lists() == 3; }));
}

TEST_F(ObjectCacheTest, WhileNothingIsKnownItSaysSo) {
  server_->Accept({});
  Start();
  ASSERT_TRUE(
      Wait([&] { return absl::IsUnauthenticated(cache_->status().value_or(absl::OkStatus())); }));
  server_->Accept({"first"});
  ASSERT_TRUE(WaitForNames({}));
  server_->Give({"GET", "watch=true", 500, "", false, "no watches today"});
  ASSERT_TRUE(Wait([&] { return Watches() >= 1; }));
  server_->EndWatches();
  ASSERT_TRUE(Wait([&] { return Lists() >= 3; }));  // refused, first, and after the trouble
  ASSERT_TRUE(WaitForNames({}));
}

}  // namespace
}  // namespace switchyard::coordinator
