#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "coordinator/cli/api_client.h"
#include "tests/coordinator/cli/cli_fixture.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

using Writer = grpc::ServerWriter<v1::WatchJobsResponse>;
using Context = grpc::ServerContext;

v1::WatchJobsResponse JobMessage(const v1::Job& job, const std::string& token) {
  v1::WatchJobsResponse message;
  *message.mutable_job() = job;
  message.set_resume_token(token);
  return message;
}

v1::WatchJobsResponse StepMessage(int64_t step, double loss, const std::string& token) {
  v1::WatchJobsResponse message;
  message.mutable_step()->set_step(step);
  message.mutable_step()->set_loss(loss);
  message.mutable_step()->set_eval_loss(loss + 0.5);  // so that no line is left out
  message.set_resume_token(token);
  return message;
}

class WatchTest : public CliTest {
 protected:
  FakeJobs::WatchScript EndsWith(v1::JobState state) {
    return [state](Context*, const v1::WatchJobsRequest&, Writer* writer) {
      writer->Write(JobMessage(EndedJob(state), "t-end"));
      return grpc::Status::OK;
    };
  }
};

TEST_F(WatchTest, TheExitCodeSaysHowTheJobEnded) {
  server.jobs.scripts = {EndsWith(v1::JOB_STATE_SUCCEEDED)};
  EXPECT_EQ(Run({"watch", "demo"}), 0);
  EXPECT_THAT(out, AllOf(HasSubstr("5.5000 before, 2.2500 after (-3.2500 nats per target)"),
                         HasSubstr("/out/demo/final")));
  server.jobs.scripts = {EndsWith(v1::JOB_STATE_FAILED)};
  EXPECT_EQ(Run({"watch", "demo"}), 1);
  EXPECT_THAT(out,
              AllOf(HasSubstr("RANK_EXITED: rank 1 ended with exit code 3"),
                    HasSubstr("the last line of its log"), HasSubstr("switchyard retry demo")));
  server.jobs.scripts = {EndsWith(v1::JOB_STATE_CANCELLED)};
  EXPECT_EQ(Run({"watch", "demo"}), 3);
  server.jobs.scripts = {[](Context*, const v1::WatchJobsRequest&, Writer* writer) {
    v1::WatchJobsResponse message;
    message.set_deleted("projects/default/jobs/demo");
    writer->Write(message);
    return grpc::Status::OK;
  }};
  EXPECT_EQ(Run({"watch", "demo"}), 3);
}

TEST_F(WatchTest, AJobThatDoesNotExistIsAUsageError) {
  EXPECT_EQ(Run({"watch", "nobody"}), 2);
  EXPECT_THAT(err, HasSubstr("no such job"));
}

TEST_F(WatchTest, SubmitWithWatchFollowsTheJobThatWasCreated) {
  server.jobs.scripts = {EndsWith(v1::JOB_STATE_SUCCEEDED)};
  EXPECT_EQ(Run({"submit", "--watch", Write("job.yaml", "name: demo\n")}), 0);
  ASSERT_EQ(server.jobs.watches.size(), 1u);
  EXPECT_EQ(server.jobs.watches[0].parent(), "projects/default/jobs/demo");
}

TEST_F(WatchTest, GoesOnWithItsTokenAfterTheStreamBroke) {
  server.jobs.scripts = {[this](Context*, const v1::WatchJobsRequest&, Writer* writer) {
                           writer->Write(JobMessage(DemoJob(), "t-1"));
                           writer->Write(StepMessage(101, 3.0, "t-2"));
                           return grpc::Status(grpc::StatusCode::UNAVAILABLE, "shutting down");
                         },
                         [](Context*, const v1::WatchJobsRequest&, Writer* writer) {
                           writer->Write(StepMessage(102, 2.9, "t-3"));
                           writer->Write(JobMessage(EndedJob(v1::JOB_STATE_SUCCEEDED), "t-4"));
                           return grpc::Status::OK;
                         }};
  EXPECT_EQ(Run({"watch", "demo"}), 0);
  ASSERT_EQ(server.jobs.watches.size(), 2u);
  EXPECT_EQ(server.jobs.watches[0].resume_token(), "");
  EXPECT_EQ(server.jobs.watches[1].resume_token(), "t-2");
  EXPECT_THAT(out, AllOf(HasSubstr("step 101/400  loss 3.0000  held-out 3.5000"),
                         HasSubstr("the coordinator is away"), HasSubstr("the coordinator is back"),
                         HasSubstr("step 102/400")));
}

TEST_F(WatchTest, StartsAnewWhenItsTokenIsTooOld) {
  server.jobs.scripts = {[this](Context*, const v1::WatchJobsRequest&, Writer* writer) {
                           writer->Write(JobMessage(DemoJob(), "t-1"));
                           return grpc::Status(grpc::StatusCode::ABORTED, "too slow");
                         },
                         [](Context*, const v1::WatchJobsRequest&, Writer*) {
                           return grpc::Status(grpc::StatusCode::OUT_OF_RANGE, "token too old");
                         },
                         EndsWith(v1::JOB_STATE_SUCCEEDED)};
  EXPECT_EQ(Run({"watch", "demo"}), 0);
  ASSERT_EQ(server.jobs.watches.size(), 3u);
  EXPECT_EQ(server.jobs.watches[1].resume_token(), "t-1");
  EXPECT_EQ(server.jobs.watches[2].resume_token(), "");
}

TEST_F(WatchTest, SurvivesACoordinatorThatRestartsOnTheSamePort) {
  std::atomic<bool> told{false};
  server.jobs.scripts = {[&](Context* context, const v1::WatchJobsRequest&, Writer* writer) {
                           writer->Write(JobMessage(DemoJob(), "t-1"));
                           told = true;
                           while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(5));
                           return grpc::Status(grpc::StatusCode::UNAVAILABLE, "shutting down");
                         },
                         EndsWith(v1::JOB_STATE_SUCCEEDED)};
  const int port = server.port();
  int code = -1;
  const std::string address = server.address();
  std::jthread watcher([&] { code = Run({"watch", "demo"}); });
  while (!told) absl::SleepFor(absl::Milliseconds(5));
  server.Stop();
  absl::SleepFor(absl::Milliseconds(300));
  server.Start(port);
  ASSERT_TRUE(server.running());
  watcher.join();
  EXPECT_EQ(code, 0) << err;
  ASSERT_EQ(server.jobs.watches.size(), 2u);
  EXPECT_EQ(server.jobs.watches[1].resume_token(), "t-1");
}

TEST_F(WatchTest, GivesUpWhenNoCoordinatorEverAnswers) {
  server.Stop();
  EXPECT_EQ(Run({"watch", "demo", "--retry-for", "0.3"}), 69);
  EXPECT_THAT(err, HasSubstr("no coordinator answers"));
}

TEST_F(WatchTest, JsonIsOneObjectALine) {
  server.jobs.scripts = {[this](Context*, const v1::WatchJobsRequest&, Writer* writer) {
    writer->Write(JobMessage(DemoJob(), "t-1"));
    writer->Write(StepMessage(101, 3.0, "t-2"));
    writer->Write(JobMessage(EndedJob(v1::JOB_STATE_SUCCEEDED), "t-3"));
    return grpc::Status::OK;
  }};
  EXPECT_EQ(Run({"watch", "demo", "--output", "json"}), 0);
  std::istringstream lines(out);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count)
    EXPECT_TRUE(nlohmann::json::accept(line)) << line;
  EXPECT_EQ(count, 3);
}

TEST_F(WatchTest, ATerminalGetsOneBlockAndEndsWithTheSummary) {
  server.jobs.scripts = {[this](Context*, const v1::WatchJobsRequest&, Writer* writer) {
    writer->Write(JobMessage(DemoJob(), "t-1"));
    absl::SleepFor(absl::Milliseconds(500));
    writer->Write(JobMessage(EndedJob(v1::JOB_STATE_SUCCEEDED), "t-2"));
    return grpc::Status::OK;
  }};
  EXPECT_EQ(Run({"watch", "demo"}, true), 0);
  EXPECT_THAT(out, AllOf(HasSubstr("predicted 1,310 tokens/s (92 %)"), HasSubstr("\033[2K"),
                         HasSubstr("/out/demo/final")));
}

TEST(ReconnectDelayTest, IsFullJitterFromAFifthOfASecondToTen) {
  EXPECT_EQ(ReconnectDelay(0, 1.0), absl::Milliseconds(200));
  EXPECT_EQ(ReconnectDelay(1, 0.5), absl::Milliseconds(200));
  EXPECT_EQ(ReconnectDelay(20, 1.0), absl::Seconds(10));
  EXPECT_EQ(ReconnectDelay(20, 0.0), absl::ZeroDuration());
}

}  // namespace
}  // namespace switchyard::coordinator
