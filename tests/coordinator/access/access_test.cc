// The table against the protos, limits by hand-turned clock, the audit log's files.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "coordinator/access/access_setup.h"
#include "coordinator/access/audit_log.h"
#include "coordinator/access/method_table.h"
#include "coordinator/access/rate_limiter.h"
#include "coordinator/access/request_facts.h"
#include "switchyard/agent/v1/agent.pb.h"
#include "switchyard/v1/access.pb.h"
#include "switchyard/v1/checkpoint.pb.h"
#include "switchyard/v1/job_service.pb.h"
#include "switchyard/v1/node.pb.h"
#include "tests/agent/support/temporary_directory.h"

namespace switchyard::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAreArray;

// Every method of every service in the directories of the protos that are linked in.
std::vector<const google::protobuf::MethodDescriptor*> AllMethods() {
  std::vector<const google::protobuf::MethodDescriptor*> methods;
  for (const auto* file :
       {v1::GetJobRequest::descriptor()->file(), v1::GetNodeRequest::descriptor()->file(),
        v1::GetCheckpointRequest::descriptor()->file(), v1::GetCallerRequest::descriptor()->file(),
        agent::v1::ConnectRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m)
        methods.push_back(file->service(s)->method(m));
    }
  }
  return methods;
}

std::string NameOf(const google::protobuf::MethodDescriptor& method) {
  return method.service()->full_name() + "/" + method.name();
}

TEST(MethodTable, HasEveryMethodOfEveryServiceAndNoOther) {
  std::vector<std::string> in_protos, in_table;
  for (const auto* method : AllMethods()) in_protos.push_back(NameOf(*method));
  for (const MethodRule& rule : MethodTable()) in_table.emplace_back(rule.method);
  EXPECT_GE(in_protos.size(), 29u);
  EXPECT_THAT(in_table, UnorderedElementsAreArray(in_protos));
}

TEST(MethodTable, CoversEveryServiceOfTheProtoDirectories) {
  // A service in a proto file that AllMethods does not know would escape the test above.
  const char* source = std::getenv("SWITCHYARD_SOURCE_DIR");
  ASSERT_NE(source, nullptr);
  std::set<std::string> known;
  for (const auto* method : AllMethods()) known.insert(method->service()->name());
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(std::string(source) + "/proto")) {
    if (entry.path().extension() != ".proto") continue;
    std::ifstream file(entry.path());
    for (std::string line; std::getline(file, line);) {
      if (line.rfind("service ", 0) != 0) continue;
      const std::string name = line.substr(8, line.find(' ', 8) - 8);
      EXPECT_TRUE(known.contains(name)) << entry.path() << ": " << name;
    }
  }
}

TEST(MethodTable, OnlyAgentsNeedNoRoleAndChangesAreAudited) {
  for (const MethodRule& rule : MethodTable()) {
    EXPECT_EQ(rule.role == security::Role::kNone, rule.scope == Scope::kAgent) << rule.method;
    const std::string verb =
        std::string(rule.method).substr(std::string(rule.method).find('/') + 1);
    const bool reads = verb.rfind("Get", 0) == 0 || verb.rfind("List", 0) == 0 ||
                       verb.rfind("Watch", 0) == 0 || verb.rfind("Stream", 0) == 0 ||
                       verb.rfind("Query", 0) == 0 || verb.rfind("Plan", 0) == 0;
    EXPECT_NE(rule.audited, reads) << rule.method;
  }
}

TEST(RequestFacts, EachRequestBelongsToOneMethod) {
  std::set<const google::protobuf::Descriptor*> requests;
  for (const auto* method : AllMethods()) {
    EXPECT_TRUE(requests.insert(method->input_type()).second) << NameOf(*method);
    const auto* prototype =
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(method->input_type());
    EXPECT_EQ(MethodOf(*prototype), NameOf(*method));
  }
  EXPECT_EQ(MethodOf(v1::Job()), "");
}

TEST(RequestFacts, TheProjectIsThatOfTheResource) {
  v1::CreateJobRequest create;
  create.mutable_spec()->set_name("j");
  EXPECT_EQ(ResourceOf(create), "projects/default/jobs/j");
  create.mutable_spec()->set_project("art");
  create.set_job_id("k");
  EXPECT_EQ(ResourceOf(create), "projects/art/jobs/k");
  v1::WatchJobsRequest watch;
  watch.set_parent("projects/-");
  EXPECT_EQ(ProjectOf(ResourceOf(watch)), "*");
  EXPECT_EQ(ProjectOf("projects/art/jobs/j/checkpoints/7"), "art");
  EXPECT_EQ(ProjectOf("nodes/n"), "*");
  EXPECT_EQ(ProjectOf("projects/"), "*");
  EXPECT_EQ(ProjectOf("projects//jobs/x"), "*");
  EXPECT_EQ(ProjectOf(""), "*");
}

TEST(RateLimiter, GivesABurstAndThenSoManyASecondToEach) {
  RateLimiter limiter(10, 3);
  const absl::Time start = absl::FromUnixSeconds(1000);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limiter.Take("a", start));
  EXPECT_FALSE(limiter.Take("a", start));
  EXPECT_TRUE(limiter.Take("b", start));
  EXPECT_TRUE(limiter.Take("a", start + absl::Milliseconds(110)));
  EXPECT_FALSE(limiter.Take("a", start + absl::Milliseconds(110)));
  // A clock that goes back gives nothing and takes nothing.
  EXPECT_FALSE(limiter.Take("a", start));
}

TEST(AuditLog, IsRotatedAndPrivateAndSurvivesBytesThatAreNoText) {
  agent::TemporaryDirectory dir;
  const std::string path = dir / "audit.log";
  auto log = AuditLog::Open(path, {.max_file_bytes = 1000, .kept_files = 2});
  ASSERT_TRUE(log.ok()) << log.status();
  for (int i = 0; i < 50; ++i) {
    (*log)->Write({.time = absl::FromUnixSeconds(i),
                   .caller_id = "t",
                   .method = "m",
                   .resource = "\xff\n\"" + std::string(5000, 'x'),
                   .result = "OK"});
  }
  EXPECT_TRUE(std::filesystem::exists(path + ".1"));
  EXPECT_TRUE(std::filesystem::exists(path + ".2"));
  EXPECT_FALSE(std::filesystem::exists(path + ".3"));
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0600));
  std::ifstream file(path);
  int lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    EXPECT_LT(line.size(), 1000u);
    EXPECT_TRUE(line.starts_with("{\"time\":\"1970-01-01T00:00:") && line.ends_with("\"}")) << line;
  }
  EXPECT_GT(lines, 0);
}

TEST(AccessSetup, PlainTextIsForLoopbackUnlessItIsAskedFor) {
  const auto message = [](const AccessOptions& options, const char* listen) {
    return std::string(SetUpAccess(options, listen).status().message());
  };
  EXPECT_EQ(message({}, "127.0.0.1:7070"), "");
  EXPECT_EQ(message({}, "[::1]:7070"), "");
  EXPECT_EQ(message({.plain_text = true}, "0.0.0.0:7070"), "");
  for (const char* listen : {"0.0.0.0:7070", "10.0.0.1:1", "[::]:1", "127.0.0.1.evil.example:1",
                             "localhost.example:1"}) {
    EXPECT_THAT(message({}, listen), HasSubstr("switchyard-coordinator init")) << listen;
  }
  EXPECT_THAT(message({.security_dir = "x", .plain_text = true}, "0.0.0.0:1"),
              HasSubstr("exclude each other"));
  EXPECT_THAT(message({.security_dir = "x"}, "0.0.0.0:1"), HasSubstr("--model-root"));
}

}  // namespace
}  // namespace switchyard::coordinator
