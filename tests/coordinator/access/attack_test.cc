// What somebody who means ill tries against a real coordinator, over real TLS: none of it may work,
// and the honest caller beside it must not notice.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <future>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "common/security/issue.h"
#include "common/security/token.h"
#include "coordinator/access/method_table.h"
#include "switchyard/agent/v1/agent.grpc.pb.h"
#include "switchyard/v1/access.grpc.pb.h"
#include "switchyard/v1/checkpoint.grpc.pb.h"
#include "switchyard/v1/job_service.grpc.pb.h"
#include "switchyard/v1/node.grpc.pb.h"
#include "tests/coordinator/access/call_by_name.h"
#include "tests/coordinator/access/secure_coordinator.h"

namespace switchyard::coordinator {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;
using ::testing::Not;

class Attack : public testing::Test {
 protected:
  static void SetUpTestSuite() { coordinator_ = new SecureCoordinator(); }
  static void TearDownTestSuite() {
    EXPECT_EQ(coordinator_->program().Stop(SIGTERM), 0);
    delete coordinator_;
  }

  static grpc::Status ListJobs(const std::shared_ptr<grpc::Channel>& channel,
                               const std::string& parent) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    v1::ListJobsRequest request;
    request.set_parent(parent);
    v1::ListJobsResponse response;
    return v1::JobService::NewStub(channel)->ListJobs(&context, request, &response);
  }

  static SecureCoordinator* coordinator_;
};
SecureCoordinator* Attack::coordinator_ = nullptr;

struct Handshake {
  bool done = false;
  std::string protocol;
};
// With OpenSSL alone, so that the client may be as old as it likes.
Handshake ShakeHands(const std::string& address, int max_version) {
  Handshake result;
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_max_proto_version(context, max_version);
  const unsigned char h2[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context, h2, sizeof(h2));
  BIO* bio = BIO_new_ssl_connect(context);
  BIO_set_conn_hostname(bio, address.c_str());
  result.done = BIO_do_handshake(bio) == 1;
  SSL* ssl = nullptr;
  BIO_get_ssl(bio, &ssl);
  result.protocol = SSL_get_version(ssl);
  BIO_free_all(bio);
  SSL_CTX_free(context);
  return result;
}

TEST_F(Attack, ReadingAlongInPlainTextOrWithAnOldTls) {
  const auto plain = rpc::MakeChannel(coordinator_->address());
  EXPECT_EQ(ListJobs(plain, "projects/-").error_code(), StatusCode::UNAVAILABLE);
  EXPECT_FALSE(ShakeHands(coordinator_->address(), TLS1_2_VERSION).done);
  EXPECT_FALSE(ShakeHands(coordinator_->address(), TLS1_1_VERSION).done);
  const Handshake good = ShakeHands(coordinator_->address(), TLS1_3_VERSION);
  EXPECT_TRUE(good.done);
  EXPECT_EQ(good.protocol, "TLSv1.3");
}

TEST_F(Attack, StandingInForTheCoordinator) {
  // Another authority, and a good certificate for another name.
  const std::string other = *coordinator_ / "other";
  ASSERT_EQ(security::CreateAuthority(other, 10, absl::Now()), absl::OkStatus());
  const auto distrusting =
      SecureCoordinator::Channel({.authority = other + "/ca.crt"}, coordinator_->address());
  EXPECT_EQ(ListJobs(distrusting, "projects/-").error_code(), StatusCode::UNAVAILABLE);
  const size_t colon = coordinator_->address().rfind(':');
  const std::string unnamed = "127.0.0.2" + coordinator_->address().substr(colon);
  const auto elsewhere = SecureCoordinator::Channel(
      {.authority = coordinator_->security() + "/ca.crt", .token = coordinator_->AdminToken()},
      unnamed);
  EXPECT_EQ(ListJobs(elsewhere, "projects/-").error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(Attack, CallingWithoutATokenOrWithOneThatIsNot) {
  std::string altered = coordinator_->AdminToken();
  altered.back() = altered.back() == 'A' ? 'B' : 'A';
  for (const std::string& token :
       {std::string(), security::NewToken().Text(), altered, std::string("nonsense")}) {
    EXPECT_EQ(ListJobs(coordinator_->Channel(token), "projects/-").error_code(),
              StatusCode::UNAUTHENTICATED)
        << token;
  }
  EXPECT_TRUE(ListJobs(coordinator_->Channel(coordinator_->AdminToken()), "projects/-").ok());
}

TEST_F(Attack, UsingATokenAfterItsEnd) {
  const auto admin = coordinator_->Channel(coordinator_->AdminToken());
  const auto stub = v1::AccessService::NewStub(admin);
  v1::CreateTokenRequest request;
  request.set_display_name("short");
  auto& grant = *request.add_grants();
  grant.set_project("art");
  grant.set_role(v1::ROLE_VIEWER);
  v1::CreateTokenResponse kept, brief;
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->CreateToken(&context, request, &kept).ok());
  }
  request.mutable_expire_time()->set_seconds(absl::ToUnixSeconds(absl::Now()) + 2);
  {
    grpc::ClientContext context;
    ASSERT_TRUE(stub->CreateToken(&context, request, &brief).ok());
  }
  const auto expiring = coordinator_->Channel(brief.text());
  EXPECT_TRUE(ListJobs(expiring, "projects/art").ok());
  const auto revoked = coordinator_->Channel(kept.text());
  EXPECT_TRUE(ListJobs(revoked, "projects/art").ok());
  {
    grpc::ClientContext context;
    v1::RevokeTokenRequest revoke;
    revoke.set_name(kept.token().name());
    v1::Token token;
    ASSERT_TRUE(stub->RevokeToken(&context, revoke, &token).ok());
  }
  const grpc::Status refused = ListJobs(revoked, "projects/art");  // at once, on an open channel
  EXPECT_EQ(refused.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(refused.error_message(), HasSubstr("was revoked at"));
  EXPECT_TRUE(agent::Eventually([&] {
    return absl::StrContains(ListJobs(expiring, "projects/art").error_message(), "expired at");
  }));
}

// Gives a request of any kind a resource of `project`.
std::unique_ptr<google::protobuf::Message> RequestFor(
    const google::protobuf::MethodDescriptor& method, const std::string& project) {
  std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()
          ->GetPrototype(method.input_type())
          ->New());
  const auto* reflection = message->GetReflection();
  const auto* type = message->GetDescriptor();
  for (const char* field : {"name", "parent"}) {
    const auto* descriptor = type->FindFieldByName(field);
    if (descriptor == nullptr) continue;
    const bool list = absl::StartsWith(method.name(), "ListJobs");
    reflection->SetString(message.get(), descriptor,
                          "projects/" + project + (list ? "" : "/jobs/j"));
  }
  if (const auto* spec = type->FindFieldByName("spec")) {
    auto* job = static_cast<v1::JobSpec*>(reflection->MutableMessage(message.get(), spec));
    job->set_project(project);
    job->set_name("j");
  }
  return message;
}

std::vector<const google::protobuf::MethodDescriptor*> UserMethods() {
  std::vector<const google::protobuf::MethodDescriptor*> methods;
  for (const auto* file :
       {v1::GetJobRequest::descriptor()->file(), v1::GetNodeRequest::descriptor()->file(),
        v1::GetCheckpointRequest::descriptor()->file(),
        v1::GetCallerRequest::descriptor()->file()}) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m)
        methods.push_back(file->service(s)->method(m));
    }
  }
  return methods;
}

TEST_F(Attack, EveryMethodWithEveryRoleDoesWhatTheTableSays) {
  using security::Role;
  for (const Role role : {Role::kViewer, Role::kSubmitter, Role::kOperator, Role::kAdmin}) {
    const auto channel = coordinator_->Channel(coordinator_->Token(RoleName(role), "science"));
    for (const auto* method : UserMethods()) {
      const std::string name = method->service()->full_name() + "/" + method->name();
      const MethodRule* rule = FindRule(name);
      ASSERT_NE(rule, nullptr) << name;
      const auto code = [&](const std::string& project) {
        return CallByName(channel, "/" + name, RequestFor(*method, project)->SerializeAsString())
            .error_code();
      };
      const bool enough = role >= rule->role && rule->scope != Scope::kService;
      EXPECT_EQ(code("science") != StatusCode::PERMISSION_DENIED, enough)
          << name << " as " << RoleName(role);
      if (rule->scope == Scope::kProject) {
        EXPECT_EQ(code("art"), StatusCode::PERMISSION_DENIED) << name << " in a foreign project";
      }
    }
  }
  const auto nobody = coordinator_->Channel("");
  for (const auto* method : UserMethods()) {
    const std::string name = method->service()->full_name() + "/" + method->name();
    EXPECT_EQ(CallByName(nobody, "/" + name, RequestFor(*method, "science")->SerializeAsString())
                  .error_code(),
              StatusCode::UNAUTHENTICATED)
        << name;
  }
}

TEST_F(Attack, GivingOneselfMoreThanOneHas) {
  const auto stub =
      v1::AccessService::NewStub(coordinator_->Channel(coordinator_->Token("admin", "science")));
  for (const char* project : {"*", "art"}) {
    grpc::ClientContext context;
    v1::CreateTokenRequest request;
    request.set_display_name("more");
    auto& grant = *request.add_grants();
    grant.set_project(project);
    grant.set_role(v1::ROLE_VIEWER);
    v1::CreateTokenResponse response;
    EXPECT_EQ(stub->CreateToken(&context, request, &response).error_code(),
              StatusCode::PERMISSION_DENIED)
        << project;
  }
  // Nor may it see or end the tokens of others.
  grpc::ClientContext list_context, revoke_context;
  v1::ListTokensResponse tokens;
  ASSERT_TRUE(stub->ListTokens(&list_context, {}, &tokens).ok());
  for (const v1::Token& token : tokens.tokens()) {
    for (const v1::Grant& grant : token.grants()) EXPECT_EQ(grant.project(), "science");
  }
  v1::RevokeTokenRequest revoke;
  revoke.set_name("tokens/" + security::ParseToken(coordinator_->AdminToken())->id);
  v1::Token token;
  EXPECT_EQ(stub->RevokeToken(&revoke_context, revoke, &token).error_code(),
            StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(ListJobs(coordinator_->Channel(coordinator_->AdminToken()), "projects/-").ok());
}

TEST_F(Attack, NamingPathsOutsideOfTheAllowedDirectories) {
  const auto stub =
      v1::JobService::NewStub(coordinator_->Channel(coordinator_->Token("submitter", "science")));
  std::filesystem::create_directory_symlink("/etc", *coordinator_ / "data/link");
  const auto violations = [&](const std::string& model, const std::string& train,
                              const std::string& output) {
    grpc::ClientContext context;
    v1::CreateJobRequest request;
    auto& spec = *request.mutable_spec();
    spec.set_name("j");
    spec.set_project("science");
    spec.set_model(model);
    spec.mutable_data()->set_train(train);
    spec.mutable_training()->set_steps(1);
    spec.mutable_checkpoint()->set_output(output);
    v1::Job job;
    const grpc::Status status = stub->CreateJob(&context, request, &job);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
    return status.error_message();
  };
  const std::string text = violations("/etc", *coordinator_ / "data/link/passwd", "/tmp/elsewhere");
  EXPECT_THAT(text, HasSubstr("model: is \"/etc\", outside of what this service may use"));
  EXPECT_THAT(text, HasSubstr("data.train: is "));
  EXPECT_THAT(text, HasSubstr("checkpoint.output: is \"/tmp/elsewhere\", outside"));
  // It says the same of what is there and of what is not: no listing of other people's disks.
  EXPECT_THAT(violations("/etc/no-such-thing", "/etc/shadow", "/out"),
              Not(HasSubstr("no such directory")));
  EXPECT_FALSE(std::filesystem::exists("/tmp/elsewhere"));
  EXPECT_THAT(violations(*coordinator_ / "models/../elsewhere", "/proc/self/environ", "relative"),
              HasSubstr("model: "));
}

TEST_F(Attack, OverwhelmingWithBytesConnectionsAndStreams) {
  const auto channel = coordinator_->Channel(coordinator_->Token("submitter", "science"));
  const auto stub = v1::JobService::NewStub(channel);
  {
    grpc::ClientContext context;
    v1::CreateJobRequest request;
    request.mutable_spec()->set_project("science");
    request.mutable_spec()->set_name(std::string(5 << 20, 'x'));
    v1::Job job;
    EXPECT_EQ(stub->CreateJob(&context, request, &job).error_code(),
              StatusCode::RESOURCE_EXHAUSTED);
  }
  // Many connections that say nothing, or half a sentence.
  std::vector<UniqueFd> sockets;
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<uint16_t>(
      std::stoi(coordinator_->address().substr(coordinator_->address().rfind(':') + 1))));
  for (int i = 0; i < 200; ++i) {
    sockets.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(sockets.back().get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)), 0);
    if (i % 2 == 0) (void)!write(sockets.back().get(), "\x16\x03\x01", 3);
  }
  EXPECT_TRUE(ListJobs(channel, "projects/science").ok());
  // More open streams than one may have; those of others are not counted.
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::WatchJobsResponse>>> watches;
  v1::WatchJobsRequest watch;
  watch.set_parent("projects/science");
  const auto open_one = [&](v1::JobService::Stub& client) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    watches.push_back(client.WatchJobs(contexts.back().get(), watch));
    v1::WatchJobsResponse first;
    return watches.back()->Read(&first);
  };
  int opened = 0;
  while (opened < 100 && open_one(*stub)) ++opened;
  EXPECT_EQ(opened, 64);
  EXPECT_EQ(watches.back()->Finish().error_code(), StatusCode::RESOURCE_EXHAUSTED);
  const auto other =
      v1::JobService::NewStub(coordinator_->Channel(coordinator_->Token("viewer", "science")));
  EXPECT_TRUE(open_one(*other));
  for (auto& context : contexts) context->TryCancel();
  watches.clear();
  EXPECT_TRUE(agent::Eventually([&] { return open_one(*stub); })) << "closed streams count no more";
  for (auto& context : contexts) context->TryCancel();
}

TEST_F(Attack, AskingTooOften) {
  const auto channel = coordinator_->Channel(coordinator_->Token("viewer", "science"));
  int refused = 0;
  for (int i = 0; i < 2000 && refused == 0; ++i) {
    const grpc::Status status = ListJobs(channel, "projects/science");
    if (status.error_code() == StatusCode::RESOURCE_EXHAUSTED) {
      ++refused;
      EXPECT_THAT(status.error_message(), HasSubstr("requests a second"));
    }
  }
  // 400 at once and 100 a second: a client this quick must meet the limit, unless the machine is
  // too slow for it to ask so often.
  std::vector<std::future<grpc::Status>> calls;
  for (int i = 0; i < 1000 && refused == 0; ++i)
    calls.push_back(std::async(std::launch::async, ListJobs, channel, "projects/science"));
  for (auto& call : calls)
    refused += call.get().error_code() == StatusCode::RESOURCE_EXHAUSTED ? 1 : 0;
  EXPECT_GT(refused, 0);
  EXPECT_TRUE(
      ListJobs(coordinator_->Channel(coordinator_->Token("viewer", "science")), "projects/science")
          .ok())
      << "others are served meanwhile";
  EXPECT_THAT(coordinator_->output(), Not(HasSubstr("rpc.failed"))) << "a limit is no failure";
}

TEST_F(Attack, FindingASecretInWhatIsWritten) {
  const std::string token = coordinator_->Token("submitter", "science", "clerk");
  const std::string id = security::ParseToken(token)->id;
  const auto channel = coordinator_->Channel(token);
  EXPECT_TRUE(ListJobs(channel, "projects/science").ok());
  v1::CancelJobRequest cancel;
  cancel.set_name("projects/science/jobs/none");
  const grpc::Status missing =
      CallByName(channel, "/switchyard.v1.JobService/CancelJob", cancel.SerializeAsString());
  EXPECT_EQ(missing.error_code(), StatusCode::NOT_FOUND);
  const grpc::Status foreign = ListJobs(channel, "projects/art");
  EXPECT_EQ(foreign.error_code(), StatusCode::PERMISSION_DENIED);
  // Who, what, result: of the change that failed, and of the refusal.
  EXPECT_TRUE(agent::Eventually([&] { return absl::StrContains(coordinator_->audit(), id); }));
  std::vector<nlohmann::json> lines;
  std::istringstream audit(coordinator_->audit());
  for (std::string line; std::getline(audit, line);) {
    const auto entry = nlohmann::json::parse(line);
    if (entry.value("caller", "") == id) lines.push_back(entry);
  }
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["caller_name"], "clerk");
  EXPECT_EQ(lines[0]["method"], "switchyard.v1.JobService/CancelJob");
  EXPECT_EQ(lines[0]["resource"], "projects/science/jobs/none");
  EXPECT_EQ(lines[0]["result"], "NOT_FOUND");
  EXPECT_EQ(lines[1]["result"], "PERMISSION_DENIED");
  for (const auto& [line, status] : {std::pair(lines[0], missing), {lines[1], foreign}}) {
    const std::string trace_id = line.value("trace_id", "");
    EXPECT_EQ(trace_id.size(), 32u);
    EXPECT_THAT(status.error_details(), HasSubstr(trace_id)) << "as the caller was told";
  }
  // Everything that the coordinator ever wrote, but for the one file that is the first token.
  for (const std::string& secret : {security::ParseToken(token)->secret,
                                    security::ParseToken(coordinator_->AdminToken())->secret}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(*coordinator_ / "")) {
      if (!entry.is_regular_file() || entry.path().filename() == "admin.token") continue;
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string bytes((std::istreambuf_iterator<char>(file)), {});
      EXPECT_THAT(bytes, Not(HasSubstr(secret))) << entry.path();
    }
  }
}

}  // namespace
}  // namespace switchyard::coordinator
