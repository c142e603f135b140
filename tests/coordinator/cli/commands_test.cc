#include <gmock/gmock.h>

#include "tests/coordinator/cli/cli_fixture.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kJobYaml[] =
    "name: demo\nmodel: m\ndata: {train: t.jsonl}\ncheckpoint: {output: out}\n";

TEST_F(CliTest, SubmitSendsTheSpecWithAbsolutePathsAndARequestId) {
  EXPECT_EQ(Run({"submit", Write("job.yaml", kJobYaml), "--job-id", "mine"}), 0);
  ASSERT_EQ(server.jobs.creates.size(), 1u);
  EXPECT_EQ(server.jobs.creates[0].spec().data().train(), directory + "/t.jsonl");
  EXPECT_EQ(server.jobs.creates[0].job_id(), "mine");
  EXPECT_EQ(server.jobs.creates[0].request_id().size(), 32u);
  EXPECT_THAT(out, HasSubstr("Submitted projects/default/jobs/demo"));
}

TEST_F(CliTest, SubmitTriesAgainWithTheSameRequestIdWhileTheCoordinatorIsAway) {
  server.jobs.refusals = 2;
  EXPECT_EQ(Run({"submit", Write("job.yaml", kJobYaml)}), 0);
  ASSERT_EQ(server.jobs.creates.size(), 3u);
  EXPECT_EQ(server.jobs.creates[0].request_id(), server.jobs.creates[2].request_id());
  EXPECT_THAT(err, HasSubstr("trying again"));
}

TEST_F(CliTest, AFailedSubmitPrintsTheRequestIdForASafeRetry) {
  server.jobs.refusals = 1000;
  EXPECT_EQ(Run({"submit", Write("job.yaml", kJobYaml), "--retry-for", "0", "--request-id", "r-1"}),
            69);
  EXPECT_THAT(err,
              AllOf(HasSubstr("--request-id r-1"), HasSubstr("no coordinator answers at 127.0.0.1"),
                    HasSubstr("switchyard up")));
}

TEST_F(CliTest, SubmitPrintsEveryViolationOfTheCoordinatorWithItsField) {
  server.jobs.error =
      rpc::InvalidArgument({{"training.learning_rate", "is -1; must be greater than 0"},
                            {"mesh.ranks", "is 3; must be 1, 2 or 4"}});
  EXPECT_EQ(Run({"submit", Write("job.yaml", kJobYaml)}), 2);
  EXPECT_THAT(err, AllOf(HasSubstr("  training.learning_rate  is -1; must be greater than 0\n"),
                         HasSubstr("  mesh.ranks              is 3; must be 1, 2 or 4\n")));
  EXPECT_EQ(err.find("learning_rate"), err.rfind("learning_rate")) << "said twice: " << err;
}

TEST_F(CliTest, ABadSpecIsRefusedBeforeAnyCall) {
  EXPECT_EQ(Run({"submit", Write("job.yaml", "modle: x\n")}), 2);
  EXPECT_THAT(err, HasSubstr("did you mean \"model\"?"));
  EXPECT_TRUE(server.jobs.creates.empty());
}

TEST_F(CliTest, PlanPrintsThePlanAndItsExitCodeSaysWhetherItFits) {
  server.jobs.plan = DemoJob().plan();
  EXPECT_EQ(Run({"plan", Write("job.yaml", kJobYaml)}), 0);
  EXPECT_THAT(out, HasSubstr("4 ranks"));
  server.jobs.plan.set_feasible(false);
  server.jobs.plan.add_problems("no mesh fits");
  EXPECT_EQ(Run({"plan", Write("job.yaml", kJobYaml)}), 2);
  EXPECT_THAT(out, HasSubstr("no mesh fits"));
}

TEST_F(CliTest, JobsReadsAllPagesUpToTheLimit) {
  server.jobs.jobs_in_list = 5;
  EXPECT_EQ(Run({"jobs", "--filter", "state=RUNNING", "--project", "-"}), 0);
  EXPECT_EQ(server.jobs.last_filter, "state=RUNNING");
  EXPECT_EQ(server.jobs.last_parent, "projects/-");
  EXPECT_THAT(out, AllOf(HasSubstr("demo-4"), HasSubstr("RUNNING"), HasSubstr("100/400"),
                         HasSubstr("3.2500")));
  EXPECT_EQ(Run({"jobs", "--limit", "2"}), 0);
  EXPECT_THAT(out,
              AllOf(HasSubstr("demo-1"), Not(HasSubstr("demo-2")), HasSubstr("There are more")));
}

TEST_F(CliTest, GetDescribesAJobAndNamesAMissingOne) {
  EXPECT_EQ(Run({"get", "demo"}), 0);
  EXPECT_THAT(out, AllOf(HasSubstr("RUNNING (training)"), HasSubstr("3.5000 (from 5.5000)")));
  EXPECT_EQ(Run({"get", "other"}), 2);
  EXPECT_THAT(err, HasSubstr("job \"projects/default/jobs/other\" does not exist"));
  EXPECT_EQ(Run({"get", "projects/p/jobs/x"}), 2);
  EXPECT_THAT(err, HasSubstr("\"projects/p/jobs/x\""));
}

TEST_F(CliTest, ActionsNameTheJob) {
  for (const char* verb : {"cancel", "pause", "resume", "retry", "delete"}) {
    EXPECT_EQ(Run({verb, "demo", "--project", "p"}), 0) << err;
  }
  EXPECT_THAT(server.jobs.actions,
              ElementsAre("CancelJob projects/p/jobs/demo", "PauseJob projects/p/jobs/demo",
                          "ResumeJob projects/p/jobs/demo", "RetryJob projects/p/jobs/demo",
                          "DeleteJob projects/p/jobs/demo"));
}

TEST_F(CliTest, LogsAreShownOnceWhenAFollowedStreamBreaksAndComesBack) {
  v1::StreamLogsResponse chunk;
  chunk.set_epoch(1);
  chunk.set_rank(3);
  chunk.set_text("one\ntwo\x1b[31m\n");
  server.jobs.logs = {chunk};
  EXPECT_EQ(Run({"logs", "demo", "-f", "--tail", "5", "--epoch", "1"}), 0);
  EXPECT_EQ(out, "[rank 3] one\n[rank 3] two?[31m\n");
  ASSERT_EQ(server.jobs.log_requests.size(), 2u);
  EXPECT_EQ(server.jobs.log_requests[0].tail_lines(), 5);
  EXPECT_FALSE(server.jobs.log_requests[0].has_rank());
  EXPECT_EQ(Run({"logs", "demo", "--rank", "3"}), 0);
  EXPECT_EQ(out, "one\ntwo?[31m\n");
  EXPECT_EQ(server.jobs.log_requests[2].rank(), 3);
}

TEST_F(CliTest, MissingLogLinesAreSaid) {
  v1::StreamLogsResponse chunk;
  chunk.set_rank(-1);
  chunk.set_offset(100);
  chunk.set_text("late\n");
  chunk.set_gap_reason("EXPIRED");
  server.jobs.logs = {chunk};
  EXPECT_EQ(Run({"logs", "demo"}), 0);
  EXPECT_EQ(out, "[prepare] ... older lines are no longer kept\n[prepare] late\n");
}

TEST_F(CliTest, ExpertsDegradeToNumbersInAPipe) {
  server.jobs.load.set_step(30);
  server.jobs.load.set_num_experts(4);
  auto& layer = *server.jobs.load.add_layers();
  layer.set_layer(7);
  for (int tokens : {0, 10, 10, 20}) layer.add_tokens_per_expert(tokens);
  EXPECT_EQ(Run({"experts", "demo"}), 0);
  EXPECT_THAT(
      out, AllOf(HasSubstr("    7  2.00     1  0.00  1.00  1.00  2.00\n"), Not(HasSubstr("\033"))));
  EXPECT_EQ(Run({"experts", "demo"}, true), 0);
  EXPECT_THAT(out,
              AllOf(HasSubstr("layer 7"), HasSubstr("\033[48;5;"), HasSubstr("max 2.00, 1 idle")));
}

TEST_F(CliTest, NodesShowsWhoHoldsTheSlots) {
  EXPECT_EQ(Run({"nodes"}), 0);
  EXPECT_THAT(out, HasSubstr("No node is known"));
  server.nodes.node.set_name("nodes/a");
  server.nodes.node.set_state(v1::NODE_STATE_READY);
  for (int i = 0; i < 2; ++i) server.nodes.node.add_slots()->set_device("cpu");
  server.nodes.node.mutable_slots(0)->set_job("projects/default/jobs/demo");
  EXPECT_EQ(Run({"nodes"}), 0);
  EXPECT_THAT(out, AllOf(HasSubstr("READY"), HasSubstr("1/2"), HasSubstr("demo (1)")));
  EXPECT_EQ(Run({"node", "drain", "a"}), 0);
  EXPECT_EQ(out, "a: READY, draining\n");
  EXPECT_EQ(Run({"node", "cordon", "a"}), 0);
  EXPECT_EQ(Run({"node", "uncordon", "nodes/a"}), 0);
  EXPECT_EQ(Run({"node", "forget", "a"}), 0);
  EXPECT_EQ(out, "a: forgotten\n");
  EXPECT_THAT(server.nodes.actions, ElementsAre("DrainNode nodes/a", "CordonNode nodes/a",
                                                "UncordonNode nodes/a", "DeleteNode nodes/a"));
}

TEST_F(CliTest, CheckpointsAreListedAndAskedFor) {
  v1::Checkpoint checkpoint;
  checkpoint.set_step(200);
  checkpoint.set_bytes(3 << 20);
  checkpoint.set_state(v1::CHECKPOINT_STATE_AVAILABLE);
  checkpoint.set_path("/out/demo/checkpoints/step-200");
  server.checkpoints.checkpoints = {checkpoint};
  EXPECT_EQ(Run({"checkpoints", "demo"}), 0);
  EXPECT_THAT(out,
              AllOf(HasSubstr("200  available"), HasSubstr("3.00 MiB"), HasSubstr("/step-200\n")));
  EXPECT_EQ(Run({"checkpoint", "demo"}), 0);
  EXPECT_THAT(server.checkpoints.saves, ElementsAre("projects/default/jobs/demo"));
}

TEST_F(CliTest, ReportWritesOneHtmlPage) {
  const std::string file = directory + "/report.html";
  EXPECT_EQ(Run({"report", "demo", "-o", file}), 0) << err;
  std::stringstream page;
  page << std::ifstream(file).rdbuf();
  EXPECT_THAT(page.str(),
              AllOf(HasSubstr("<!doctype html>"), HasSubstr("demo"), HasSubstr("</html>")));
  EXPECT_EQ(Run({"report", "demo", "-o", directory + "/none/report.html"}), 2);
  EXPECT_THAT(err, HasSubstr("cannot write the report to"));
}

TEST_F(CliTest, EveryCommandWritesValidJson) {
  server.nodes.node.set_name("nodes/a");
  v1::StepSample sample;
  sample.set_loss(std::nan(""));
  server.jobs.samples = {sample};
  const std::string spec = Write("job.yaml", kJobYaml);
  const std::vector<std::vector<std::string>> commands = {
      {"plan", spec},
      {"submit", spec},
      {"jobs"},
      {"get", "demo"},
      {"cancel", "demo"},
      {"pause", "demo"},
      {"resume", "demo"},
      {"retry", "demo"},
      {"delete", "demo"},
      {"events", "demo"},
      {"checkpoints", "demo"},
      {"checkpoint", "demo"},
      {"experts", "demo"},
      {"metrics", "demo"},
      {"nodes"},
      {"node", "drain", "a"},
      {"node", "forget", "a"},
      {"version"},
      {"report", "demo", "-o", directory + "/r.html"},
      {"down", "--state-dir", directory}};
  server.jobs.plan = DemoJob().plan();
  for (std::vector<std::string> command : commands) {
    command.insert(command.end(), {"--output", "json"});
    EXPECT_EQ(Run(command), 0) << command[0] << ": " << err;
    EXPECT_TRUE(nlohmann::json::accept(out)) << command[0] << ": " << out;
  }
  EXPECT_EQ(Run({"get", "other", "--output", "json"}), 2);
  const auto error = nlohmann::json::parse(err);
  EXPECT_EQ(error["error"]["code"], "NOT_FOUND");
  EXPECT_EQ(error["error"]["reason"], "NOT_FOUND");
}

TEST_F(CliTest, UsageErrorsExitWithTwoAndSayTheNearestCommand) {
  EXPECT_EQ(Run({"jbos"}), 2);
  EXPECT_THAT(err, HasSubstr("\"jbos\" is not a command; did you mean \"jobs\"?"));
  EXPECT_EQ(Run({"get"}), 2);
  EXPECT_THAT(err, HasSubstr("job is required"));
  EXPECT_EQ(Run({"jobs", "--output", "xml"}), 2);
  EXPECT_EQ(Run({}), 2);
  EXPECT_EQ(Run({"--help"}), 0);
  EXPECT_THAT(out, HasSubstr("switchyard"));
}

TEST_F(CliTest, ServerErrorsExitWithSeventyAndDeadlinesWithSixtyNine) {
  server.jobs.error = absl::InternalError("broken");
  EXPECT_EQ(Run({"get", "demo"}), 70);
  server.jobs.error = absl::DeadlineExceededError("slow");
  EXPECT_EQ(Run({"get", "demo"}), 69);
  server.Stop();
  EXPECT_EQ(Run({"get", "demo"}), 69);
  EXPECT_THAT(err, HasSubstr("no coordinator answers at " + server.address()));
}

TEST_F(CliTest, CompletionNamesEveryCommandAndParsesInBash) {
  EXPECT_EQ(Run({"completion", "bash"}), 0);
  EXPECT_THAT(out, AllOf(HasSubstr("checkpoints"), HasSubstr("--request-id")));
  EXPECT_EQ(std::system(("bash -n " + Write("completion.bash", out)).c_str()), 0);
}

}  // namespace
}  // namespace switchyard::coordinator
