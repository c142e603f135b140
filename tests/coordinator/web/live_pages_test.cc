#include "coordinator/web/live_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <httplib.h>

#include <filesystem>
#include <regex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/job/memory_job_store.h"
#include "coordinator/web/job_list_page.h"
#include "coordinator/web/page_frame.h"
#include "tests/coordinator/report/demo_report.h"
#include "tests/coordinator/support/coordinator_fixture.h"
#include "tests/coordinator/support/scripted_agent.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class LivePagesTest : public CoordinatorFixture {
 protected:
  // A node whose trainers stop before their first step.
  void StartAgent() {
    agent_ = std::make_unique<ScriptedAgent>(server_->address(), "a",
                                             AgentScript{.hold_before_step = 1});
    ASSERT_TRUE(WaitForNodes(1));
  }
  void TearDown() override {
    agent_.reset();
    CoordinatorFixture::TearDown();
  }
  httplib::Response Get(const std::string& target, const std::string& tag = "") const {
    httplib::Client client("http://" + server_->http_address());
    const auto answer = client.Get(
        target, tag.empty() ? httplib::Headers() : httplib::Headers{{"If-None-Match", tag}});
    return answer ? *answer : httplib::Response();
  }
  static std::string Tag(const httplib::Response& answer) {
    return answer.get_header_value("ETag");
  }

  std::unique_ptr<ScriptedAgent> agent_;
};

TEST_F(LivePagesTest, AJobIsInTheListAndHasItsReport) {
  EXPECT_THAT(Get("/").body, HasSubstr("No jobs yet."));
  StartAgent();
  Create(Request("first"));
  EXPECT_THAT(Get("/").body, HasSubstr("<a href=\"/jobs/default/first\">first</a>"));
  const httplib::Response report = Get("/jobs/default/first");
  EXPECT_EQ(report.status, 200);
  EXPECT_THAT(report.body, AllOf(HasSubstr("<h1>first"), HasSubstr("JobCreated"),
                                 HasSubstr("No steps were reported.")));
  EXPECT_EQ(Get("/jobs/default/second").status, 404);
  EXPECT_EQ(Get("/jobs/default").status, 404);
  EXPECT_EQ(Get("/jobs/default/first/more").status, 404);
  EXPECT_EQ(Get("/elsewhere").status, 404);
}

TEST_F(LivePagesTest, APageThatDidNotChangeIsNotSentAgain) {
  const httplib::Response first = Get("/");
  EXPECT_EQ(Get("/", Tag(first)).status, 304);
  StartAgent();
  Create(Request("new"));
  const httplib::Response second = Get("/", Tag(first));
  EXPECT_EQ(second.status, 200);
  EXPECT_NE(Tag(second), Tag(first));
}

TEST_F(LivePagesTest, PagesHoldNothingInlineAndAllowNothingFromElsewhere) {
  StartAgent();
  Create(Request("first"));
  for (const char* path : {"/", "/jobs/default/first", "/jobs/default/none"}) {
    const httplib::Response answer = Get(path);
    EXPECT_THAT(answer.get_header_value("Content-Security-Policy"),
                AllOf(HasSubstr("default-src 'none'"), HasSubstr("frame-ancestors 'none'"),
                      Not(HasSubstr("unsafe"))));
    EXPECT_FALSE(std::regex_search(answer.body, std::regex("style=|<style|<script>| on[a-z]+=")))
        << path;
    EXPECT_THAT(answer.body, Not(HasSubstr("http:")));
  }
}

TEST_F(LivePagesTest, EveryAssetOfThePageIsServed) {
  const std::string page = Get("/").body;
  const std::regex reference("(?:src|href)=\"(/assets/[^\"]+)\"");
  int count = 0;
  for (std::sregex_iterator it(page.begin(), page.end(), reference), end; it != end; ++it) {
    EXPECT_EQ(Get((*it)[1]).status, 200) << (*it)[1];
    ++count;
  }
  EXPECT_EQ(count, 4);
  EXPECT_EQ(Get("/assets/none.js").status, 404);
}

TEST_F(LivePagesTest, TheHealthPageAnswersWhileTheWriterDoes) {
  EXPECT_EQ(Get("/healthz").body, "ok\n");
}

TEST(LivePagesVisibility, TheListHasOnlyWhatItsCallerMaySee) {
  const std::string directory = testing::TempDir() + "/live_pages_visibility";
  std::filesystem::create_directory(directory);
  auto metrics = MetricsStore::Open(directory + "/metrics.db");
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  MemoryJobStore store;
  PublishedState state([] {});
  std::vector<v1::Job> jobs(2);
  jobs[0].set_name("projects/art/jobs/theirs");
  jobs[1].set_name("projects/science/jobs/mine");
  state.OnLoaded({}, jobs);
  v1::Node node;
  node.set_name("nodes/a");
  for (const v1::Job& job : jobs) node.add_slots()->set_job(job.name());
  state.OnNodeChanged(node);
  LivePages pages(state, **metrics, store, [](const http::Request& request) {
    return [project = request.authorization](const std::string& job) {
      return project == "*" || absl::StartsWith(job, "projects/" + project + "/");
    };
  });
  auto server = http::Server::Bind({.address = "127.0.0.1:0"});
  ASSERT_TRUE(server.ok()) << server.status();
  pages.AddTo(**server);
  (*server)->Serve();
  httplib::Client client("http://" + (*server)->address());
  const auto list = [&](const std::string& target, const std::string& caller) {
    const auto answer = client.Get(target, {{"Authorization", caller}});
    return answer ? answer->body : "";
  };
  EXPECT_THAT(list("/", "*"), AllOf(HasSubstr(">theirs</a>"), HasSubstr(">mine</a>")));
  EXPECT_THAT(list("/", "science"), AllOf(HasSubstr(">mine</a>"), Not(HasSubstr("theirs")),
                                          Not(HasSubstr(">art<")), HasSubstr("2 of 2 in use")));
  EXPECT_THAT(list("/?project=art", "science"), Not(HasSubstr("theirs")));
  server->reset();
  std::filesystem::remove_all(directory);
}

JobListInput ListOf(std::vector<v1::Job> jobs) {
  JobListInput input;
  for (v1::Job& job : jobs) input.jobs.push_back(std::make_shared<v1::Job>(std::move(job)));
  return input;
}

v1::Job JobIn(const std::string& name, v1::JobState state) {
  v1::Job job;
  job.set_name(name);
  job.set_state(state);
  job.set_terminal(state >= v1::JOB_STATE_SUCCEEDED);
  return job;
}

TEST(JobListPageTest, FiltersByProjectAndState) {
  JobListInput input = ListOf({JobIn("projects/a/jobs/one", v1::JOB_STATE_RUNNING),
                               JobIn("projects/a/jobs/two", v1::JOB_STATE_FAILED),
                               JobIn("projects/b/jobs/three", v1::JOB_STATE_QUEUED)});
  input.project = "a";
  input.state = "active";
  EXPECT_THAT(RenderJobList(input), AllOf(HasSubstr(">one</a>"), Not(HasSubstr(">two</a>")),
                                          Not(HasSubstr(">three</a>"))));
  input.state = "ended";
  EXPECT_THAT(RenderJobList(input), AllOf(HasSubstr(">two</a>"), Not(HasSubstr(">one</a>"))));
  input.project = "c";
  EXPECT_THAT(RenderJobList(input), HasSubstr("No job matches."));
}

TEST(JobListPageTest, ShowsTheNewestOfManyAndSaysSo) {
  std::vector<v1::Job> jobs;
  for (int i = 0; i < 250; ++i)
    jobs.push_back(JobIn(absl::StrCat("projects/a/jobs/j", i), v1::JOB_STATE_QUEUED));
  const std::string page = RenderJobList(ListOf(std::move(jobs)));
  EXPECT_THAT(page, AllOf(HasSubstr("The newest 200 of 250"), HasSubstr(">j199</a>"),
                          Not(HasSubstr(">j200</a>"))));
}

TEST(JobListPageTest, EscapesWhatUsersAndNodesWrote) {
  const std::string evil = "\"><script>alert(1)</script>";
  v1::Job job = JobIn("projects/" + evil + "/jobs/" + evil, v1::JOB_STATE_FAILED);
  job.mutable_reason()->set_message(evil);
  JobListInput input = ListOf({job});
  input.project = evil;
  v1::Node node;
  node.set_name("nodes/" + evil);
  node.set_agent_version(evil);
  node.add_slots()->set_product(evil);
  input.nodes.push_back(node);
  EXPECT_THAT(RenderJobList(input), Not(HasSubstr("<script>")));
}

TEST(PageFrameTest, ALiveReportIsTheReportInAnotherFrame) {
  const ReportInput demo = DemoReport();
  const std::string main = RenderReportMain(demo);
  EXPECT_THAT(RenderHtmlReport(demo), HasSubstr(main));
  EXPECT_THAT(RenderPage({"x", "", main, std::chrono::seconds(2)}), HasSubstr(main));
}

}  // namespace
}  // namespace switchyard::coordinator
