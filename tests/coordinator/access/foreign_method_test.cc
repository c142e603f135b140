// Methods that are not of our services, called by strangers: none may leave a trace of its own
// making in the metrics, and reflection tells nothing without a token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/utf8.h"
#include "tests/coordinator/access/call_by_name.h"
#include "tests/coordinator/access/get_page.h"

namespace switchyard::coordinator {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;
using ::testing::Not;

class ForeignMethod : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    coordinator_ = new SecureCoordinator();
    EXPECT_TRUE(
        agent::Eventually([] { return !coordinator_->Read("state/metrics-address").empty(); }));
  }
  static void TearDownTestSuite() {
    EXPECT_EQ(coordinator_->program().Stop(SIGTERM), 0);
    delete coordinator_;
  }
  // Lines of /metrics about calls.
  static std::vector<std::string> SeriesOfCalls() {
    std::istringstream page(
        GetPage(*coordinator_, "/metrics", "Bearer " + coordinator_->AdminToken()));
    std::vector<std::string> lines;
    for (std::string line; std::getline(page, line);) {
      EXPECT_EQ(ToUtf8(line), line);
      if (absl::StartsWith(line, "switchyard_rpc")) lines.push_back(line);
    }
    return lines;
  }

  static SecureCoordinator* coordinator_;
};
SecureCoordinator* ForeignMethod::coordinator_ = nullptr;

TEST_F(ForeignMethod, HasNoSeriesOfItsOwn) {
  const auto stranger = coordinator_->Channel("");
  std::string health;
  EXPECT_TRUE(CallByName(stranger, "/grpc.health.v1.Health/Check", "", &health).ok());
  EXPECT_EQ(CallByName(stranger, "/switchyard.v1.JobService/GetJob", "").error_code(),
            StatusCode::UNAUTHENTICATED);
  const auto call = [&](const std::string& path) {
    return CallByName(stranger, path, "").error_code();
  };
  for (const char* path : {"/", "//", "/x", "/x.Y/"}) EXPECT_NE(call(path), StatusCode::OK) << path;
  EXPECT_NE(call("/x.Y/\xff\xfe"), StatusCode::OK);
  ASSERT_THAT(SeriesOfCalls(), testing::Contains(HasSubstr("method=\"other\"")));
  const size_t before = SeriesOfCalls().size();
  for (int i = 0; i < 50; ++i) {
    for (const std::string& path :
         {absl::StrCat("/x.Y/", i), absl::StrCat("/switchyard.v1.JobService/GetJob", i),
          absl::StrCat("/x.Y/\xff", i), absl::StrCat("/grpc.health.v1.Health/", i),
          absl::StrCat("/\"}\n", i, "\\/x"), absl::StrCat("/x", i)}) {
      EXPECT_NE(call(path), StatusCode::OK) << path;
    }
  }
  const std::vector<std::string> lines = SeriesOfCalls();
  EXPECT_EQ(lines.size(), before);
  for (const char* method : {"JobService/GetJob", "Health/Check", "other"}) {
    EXPECT_THAT(lines, testing::Contains(HasSubstr(absl::StrCat("method=\"", method, "\""))));
  }
}

// ServerReflectionRequest{list_services: "*"}
constexpr char kListServices[] = "\x3a\x01*";

TEST_F(ForeignMethod, ReflectionTellsNothingWithoutAToken) {
  const std::string path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  const auto refused = [&](const std::shared_ptr<grpc::Channel>& channel) {
    std::string answer;
    const grpc::Status status = CallByName(channel, path, kListServices, &answer);
    EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED) << status.error_message();
    EXPECT_EQ(answer, "");
    return status.error_message();
  };
  const auto stranger = coordinator_->Channel("");
  // Often: an answer must not be quicker than the refusal, ever.
  for (int i = 0; i < 200; ++i) EXPECT_THAT(refused(stranger), HasSubstr("no token was sent"));
  refused(coordinator_->Channel("sy_nonsense"));
  refused(coordinator_->AgentChannel(coordinator_->security() + "/agents/n1"));
  EXPECT_THAT(coordinator_->audit(),
              HasSubstr("\"method\":\"grpc.reflection.v1alpha.ServerReflection/"));
  EXPECT_THAT(SeriesOfCalls(),
              testing::Contains(HasSubstr("switchyard_rpcs_total{code=\"UNAUTHENTICATED\","
                                          "method=\"ServerReflection/ServerReflectionInfo\"}")));
  std::string answer;
  const auto viewer = coordinator_->Channel(coordinator_->Token("viewer", "science"));
  EXPECT_TRUE(CallByName(viewer, path, kListServices, &answer).ok());
  EXPECT_THAT(answer, HasSubstr("switchyard.v1.JobService"));
}

}  // namespace
}  // namespace switchyard::coordinator
