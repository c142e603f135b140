#include "coordinator/report/metrics_sink.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "coordinator/report/rpc_metrics.h"
#include "coordinator/report/service_series.h"
#include "switchyard/v1/node.grpc.pb.h"

namespace switchyard::coordinator {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class TestClock final : public Clock {
 public:
  SteadyTime Steady() const override { return SteadyTime(now); }
  WallTime Wall() const override { return WallTime(now + std::chrono::seconds(1760000000)); }
  std::chrono::seconds now{1000};
};

class MetricsSinkTest : public ::testing::Test {
 protected:
  v1::Job Job(v1::JobState state) const {
    v1::Job job;
    job.set_name("projects/p/jobs/a");
    job.set_state(state);
    job.set_terminal(state >= v1::JOB_STATE_SUCCEEDED);
    if (job.terminal()) job.mutable_end_time()->set_seconds(1760000000 + clock.now.count());
    job.mutable_plan()->set_ranks(4);
    job.mutable_plan()->set_device("cpu");
    job.mutable_plan()->set_expert_parallel(2);
    job.mutable_plan()->set_tokens_per_second(7000);
    job.mutable_progress()->set_total_steps(400);
    return job;
  }
  static v1::StepSample Step(int64_t step, int64_t epoch = 1) {
    v1::StepSample sample;
    sample.set_step(step);
    sample.set_epoch(epoch);
    sample.set_loss(2.5);
    sample.set_aux_loss(1.25);
    sample.set_tokens(100);
    (*sample.mutable_phase_seconds())["forward"] = 0.25;
    return sample;
  }
  std::string Text() const { return registry.Serialize(); }

  TestClock clock;
  telemetry::Registry registry;
  MetricsSink sink{registry, clock, "1.2.3"};
};

TEST_F(MetricsSinkTest, TheStateIsOneAndEveryOtherZero) {
  sink.OnJobChanged(Job(v1::JOB_STATE_RUNNING));
  EXPECT_THAT(
      Text(),
      AllOf(HasSubstr("switchyard_job_state{job=\"a\",project=\"p\",state=\"RUNNING\"} 1\n"),
            HasSubstr("switchyard_job_state{job=\"a\",project=\"p\",state=\"QUEUED\"} 0\n")));
  sink.OnJobChanged(Job(v1::JOB_STATE_QUEUED));
  EXPECT_THAT(Text(), AllOf(HasSubstr("state=\"RUNNING\"} 0\n"), HasSubstr("state=\"QUEUED\"} 1\n"),
                            HasSubstr("switchyard_queue_depth{project=\"p\"} 1\n")));
}

TEST_F(MetricsSinkTest, CountersAndHistogramsOfAJobAreZeroBeforeTheirFirstEvent) {
  sink.OnJobChanged(Job(v1::JOB_STATE_QUEUED));
  for (const telemetry::MetricInfo& info : registry.Describe()) {
    if (info.type == telemetry::MetricType::kGauge) continue;
    if (info.labels == std::vector<std::string>{"project", "job"}) {
      const char* count = info.type == telemetry::MetricType::kHistogram ? "_count" : "";
      EXPECT_THAT(Text(),
                  HasSubstr(absl::StrCat(info.name, count, "{job=\"a\",project=\"p\"} 0\n")));
    } else if (info.name != "switchyard_job_phase_seconds_total") {  // the trainer names the phases
      EXPECT_THAT(Text(), HasSubstr(absl::StrCat(info.name, "{bucket=\"productive\",job=\"a\"")));
    }
  }
}

TEST_F(MetricsSinkTest, AStepThatComesAgainWithItsHeldOutLossIsCountedOnce) {
  const v1::Job job = Job(v1::JOB_STATE_RUNNING);
  sink.OnStep(job, Step(1));
  v1::StepSample again = Step(1);
  again.set_eval_loss(3.5);
  sink.OnStep(job, again);
  sink.OnStep(job, Step(1, 2));  // a later attempt did the work again
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_job_tokens_total{job=\"a\",project=\"p\"} 200\n"),
                            HasSubstr("switchyard_job_eval_loss{job=\"a\",project=\"p\"} 3.5\n"),
                            HasSubstr("phase=\"forward\",project=\"p\"} 0.5\n")));
}

TEST_F(MetricsSinkTest, TheLossesOfAStepStandBesideEachOther) {
  sink.OnStep(Job(v1::JOB_STATE_RUNNING), Step(1));
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_job_loss{job=\"a\",project=\"p\"} 2.5\n"),
                            HasSubstr("switchyard_job_aux_loss{job=\"a\",project=\"p\"} 1.25\n")));
}

TEST_F(MetricsSinkTest, SeriesOfAJobGoFifteenMinutesAfterItsEnd) {
  sink.OnJobChanged(Job(v1::JOB_STATE_RUNNING));
  sink.OnJobChanged(Job(v1::JOB_STATE_SUCCEEDED));
  clock.now += std::chrono::minutes(14);
  sink.Refresh();
  EXPECT_THAT(Text(), HasSubstr("project=\"p\",state=\"SUCCEEDED\"} 1\n"));
  clock.now += std::chrono::minutes(2);
  sink.Refresh();
  EXPECT_THAT(Text(), Not(HasSubstr("job=\"a\"")));
}

TEST_F(MetricsSinkTest, AJobThatEndedLongBeforeTheCoordinatorStartedHasNoSeries) {
  v1::Job job = Job(v1::JOB_STATE_FAILED);
  job.mutable_end_time()->set_seconds(1760000000);
  sink.OnJobChanged(job);
  sink.OnStep(job, Step(1));
  EXPECT_THAT(Text(), Not(HasSubstr("job=\"a\"")));
}

TEST_F(MetricsSinkTest, ARetriedJobKeepsItsSeries) {
  sink.OnJobChanged(Job(v1::JOB_STATE_FAILED));
  sink.OnJobChanged(Job(v1::JOB_STATE_QUEUED));
  clock.now += std::chrono::hours(1);
  sink.Refresh();
  EXPECT_THAT(Text(), HasSubstr("job=\"a\""));
}

TEST_F(MetricsSinkTest, AJobWithAnotherMeshHasOneInfoSeries) {
  v1::Job job = Job(v1::JOB_STATE_RUNNING);
  sink.OnJobChanged(job);
  job.mutable_plan()->set_expert_parallel(4);
  sink.OnJobChanged(job);
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_job_info{device=\"cpu\",expert_parallel=\"4\""),
                            Not(HasSubstr("expert_parallel=\"2\""))));
}

TEST_F(MetricsSinkTest, ADeletedJobHasNoSeries) {
  sink.OnJobChanged(Job(v1::JOB_STATE_RUNNING));
  sink.OnJobRemoved("projects/p/jobs/a");
  EXPECT_THAT(Text(), Not(HasSubstr("job=\"a\"")));
}

TEST_F(MetricsSinkTest, RestartsCheckpointsAndSavesAreCounted) {
  v1::Job job = Job(v1::JOB_STATE_RUNNING);
  job.add_attempts();
  sink.OnJobChanged(job);
  job.add_attempts();
  job.set_phase(v1::JOB_PHASE_SAVING);
  sink.OnJobChanged(job);
  clock.now += std::chrono::seconds(3);
  job.set_phase(v1::JOB_PHASE_TRAINING);
  job.mutable_progress()->set_checkpoint_step(200);
  sink.OnJobChanged(job);
  sink.OnJobChanged(job);
  EXPECT_THAT(Text(),
              AllOf(HasSubstr("switchyard_job_restarts_total{job=\"a\",project=\"p\"} 1\n"),
                    HasSubstr("switchyard_job_checkpoints_total{job=\"a\",project=\"p\"} 1\n"),
                    HasSubstr("switchyard_job_last_save_seconds{job=\"a\",project=\"p\"} 3\n")));
}

TEST_F(MetricsSinkTest, WallTimeGoesToTheBucketThatTheJobIsIn) {
  const auto wall = [&](const std::string& bucket) {
    const std::string text = Text();
    const std::string series = absl::StrCat("switchyard_job_wall_seconds_total{bucket=\"", bucket,
                                            "\",job=\"a\",project=\"p\"} ");
    const size_t at = text.find(series);
    return at == std::string::npos ? -1 : std::stod(text.substr(at + series.size()));
  };
  v1::Job job = Job(v1::JOB_STATE_QUEUED);
  const auto tell = [&](v1::JobState state, int seconds_later) {
    job.set_state(state);
    sink.OnJobChanged(job);
    clock.now += std::chrono::seconds(seconds_later);
  };
  tell(v1::JOB_STATE_QUEUED, 5);
  job.set_epoch(1);
  job.add_attempts()->set_epoch(1);
  tell(v1::JOB_STATE_RESERVED, 1);
  tell(v1::JOB_STATE_LAUNCHING, 2);
  job.set_phase(v1::JOB_PHASE_TRAINING);
  tell(v1::JOB_STATE_RUNNING, 10);
  sink.OnStep(job, Step(50));
  job.set_phase(v1::JOB_PHASE_SAVING);
  tell(v1::JOB_STATE_RUNNING, 3);
  job.mutable_attempts(0)->set_last_step(50);
  tell(v1::JOB_STATE_RECOVERING, 4);
  // From the checkpoint of step 40: ten steps are done again.
  job.set_epoch(2);
  job.add_attempts()->set_epoch(2);
  job.mutable_attempts(1)->set_resumed_from_step(40);
  tell(v1::JOB_STATE_LAUNCHING, 2);
  job.set_phase(v1::JOB_PHASE_TRAINING);
  tell(v1::JOB_STATE_RUNNING, 7);
  sink.OnStep(job, Step(50, 2));
  clock.now += std::chrono::seconds(20);
  sink.Refresh();
  EXPECT_EQ(wall("queue"), 5);
  EXPECT_EQ(wall("startup"), 3);
  EXPECT_EQ(wall("checkpoint"), 3);
  EXPECT_EQ(wall("recovery"), 6);
  EXPECT_EQ(wall("repeated"), 7);
  EXPECT_EQ(wall("productive"), 30);
  EXPECT_THAT(Text(),
              AllOf(HasSubstr("switchyard_job_queue_seconds_sum{job=\"a\",project=\"p\"} 5\n"),
                    HasSubstr("switchyard_job_recovery_seconds_sum{job=\"a\",project=\"p\"} 6\n")));
}

TEST_F(MetricsSinkTest, ExpertLoadIsTheWorstOverTheMeanOfEachLayer) {
  v1::ExpertLoad load;
  auto& layer = *load.add_layers();
  layer.set_layer(3);
  for (int tokens : {10, 30, 0, 0}) layer.add_tokens_per_expert(tokens);
  load.add_layers()->add_tokens_per_expert(0);
  sink.OnExpertLoad(Job(v1::JOB_STATE_RUNNING), load);
  EXPECT_THAT(Text(), HasSubstr("{job=\"a\",layer=\"3\",project=\"p\"} 3\n"));
}

TEST_F(MetricsSinkTest, NodesAndSlotsAreCountedByStateAndUse) {
  v1::Node node;
  node.set_name("nodes/a");
  node.set_state(v1::NODE_STATE_READY);
  node.add_slots()->set_job("projects/p/jobs/a");
  node.add_slots();
  sink.OnNodeChanged(node);
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_nodes{state=\"ready\"} 1\n"),
                            HasSubstr("switchyard_slots{use=\"free\"} 1\n"),
                            HasSubstr("switchyard_slots{use=\"used\"} 1\n")));
  node.set_state(v1::NODE_STATE_LOST);
  sink.OnNodeChanged(node);
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_nodes{state=\"lost\"} 1\n"),
                            HasSubstr("switchyard_slots{use=\"free\"} 0\n")));
}

TEST_F(MetricsSinkTest, ANodeHasSeriesOfItsOwnUntilItIsRemoved) {
  v1::Node node;
  node.set_name("nodes/a");
  node.set_state(v1::NODE_STATE_LOST);  // known from the store, never heard
  sink.OnNodeChanged(node);
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_node_state{node=\"a\",state=\"lost\"} 1\n"),
                            HasSubstr("switchyard_node_state{node=\"a\",state=\"ready\"} 0\n"),
                            Not(HasSubstr("heartbeat_timestamp_seconds{node"))));
  node.set_state(v1::NODE_STATE_READY);
  node.mutable_last_heartbeat_time()->set_seconds(1000);
  sink.OnNodeChanged(node);
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_node_state{node=\"a\",state=\"lost\"} 0\n"),
                            HasSubstr("_last_heartbeat_timestamp_seconds{node=\"a\"} 1000\n")));
  sink.OnNodeHeard("nodes/a", Clock::WallTime(std::chrono::seconds(1002)));
  EXPECT_THAT(Text(), HasSubstr("_last_heartbeat_timestamp_seconds{node=\"a\"} 1002\n"));
  sink.OnNodeRemoved("nodes/a");
  EXPECT_THAT(Text(), AllOf(HasSubstr("switchyard_nodes{state=\"ready\"} 0\n"),
                            Not(HasSubstr("{node=\"a\""))));
}

// Rows "| `name` | type | unit | labels | meaning |" of the coordinator's tables in
// docs/metrics.md.
std::set<std::string> DocumentedSeries() {
  std::ifstream file(absl::StrCat(std::getenv("SWITCHYARD_SOURCE_DIR"), "/docs/metrics.md"));
  std::set<std::string> rows;
  bool coordinator = false;
  for (std::string line; std::getline(file, line);) {
    if (absl::StartsWith(line, "## ")) coordinator = absl::StrContains(line, "Coordinator");
    if (!coordinator || !absl::StartsWith(line, "| `")) continue;
    std::vector<std::string> cells;
    for (absl::string_view cell : absl::StrSplit(line, '|')) {
      cells.emplace_back(absl::StripAsciiWhitespace(cell));
    }
    rows.insert(absl::StrJoin({cells[1], cells[2], cells[4]}, " "));
    EXPECT_FALSE(cells[3].empty()) << "no unit: " << line;
    EXPECT_FALSE(cells[5].empty()) << "no meaning: " << line;
  }
  return rows;
}

TEST(MetricsDocumentTest, DescribesExactlyWhatTheCoordinatorExports) {
  telemetry::Registry registry;
  TestClock clock;
  const MetricsSink sink(registry, clock, "1");
  const RpcMetrics rpcs(registry);
  const ServiceSeries service(registry);
  std::set<std::string> exported;
  for (const telemetry::MetricInfo& info : registry.Describe()) {
    const char* type = info.type == telemetry::MetricType::kGauge     ? "gauge"
                       : info.type == telemetry::MetricType::kCounter ? "counter"
                                                                      : "histogram";
    std::string labels = info.labels.empty() ? "none" : absl::StrJoin(info.labels, ", ");
    exported.insert(absl::StrCat("`", info.name, "` ", type, " ", labels));
  }
  EXPECT_EQ(DocumentedSeries(), exported);
}

class NodeServer final : public v1::NodeService::Service {
  grpc::Status ListNodes(grpc::ServerContext*, const v1::ListNodesRequest*,
                         v1::ListNodesResponse*) override {
    return grpc::Status::OK;
  }
};

TEST(RpcMetricsTest, CountsCallsByMethodAndCode) {
  telemetry::Registry registry;
  NodeServer service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<RpcMetrics>(registry));
  builder.experimental().SetInterceptorCreators(std::move(interceptors));
  const auto server = builder.BuildAndStart();
  const auto stub = v1::NodeService::NewStub(
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials()));
  grpc::ClientContext first;
  v1::ListNodesResponse nodes;
  EXPECT_TRUE(stub->ListNodes(&first, {}, &nodes).ok());
  grpc::ClientContext second;
  v1::Node node;
  EXPECT_EQ(stub->GetNode(&second, {}, &node).error_code(), grpc::StatusCode::UNIMPLEMENTED);
  server->Shutdown();
  EXPECT_THAT(
      registry.Serialize(),
      AllOf(HasSubstr("switchyard_rpcs_total{code=\"OK\",method=\"NodeService/ListNodes\"} 1\n"),
            HasSubstr(
                "switchyard_rpcs_total{code=\"UNIMPLEMENTED\",method=\"NodeService/GetNode\"} 1\n"),
            HasSubstr("switchyard_rpcs_open{method=\"NodeService/ListNodes\"} 0\n"),
            HasSubstr("switchyard_rpc_seconds_count{method=\"NodeService/ListNodes\"} 1\n")));
}

}  // namespace
}  // namespace switchyard::coordinator
