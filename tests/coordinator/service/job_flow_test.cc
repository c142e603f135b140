// Whole jobs over real gRPC, with a real store and an agent whose trainers are a script.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/coordinator/support/coordinator_fixture.h"
#include "tests/coordinator/support/scripted_agent.h"

namespace switchyard::coordinator {
namespace {

using testing::Contains;
using testing::HasSubstr;

class JobFlowTest : public CoordinatorFixture {
 protected:
  std::vector<std::string> EventTypes(const std::string& name) {
    std::vector<std::string> types;
    v1::ListEventsRequest request;
    request.set_parent(name);
    request.set_page_size(3);
    while (true) {
      grpc::ClientContext context;
      v1::ListEventsResponse response;
      const auto status = jobs_->ListEvents(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      for (const auto& event : response.events()) types.push_back(event.type());
      if (response.next_page_token().empty()) return types;
      request.set_page_token(response.next_page_token());
    }
  }
  v1::CheckpointState StateOf(const std::string& checkpoint) {
    grpc::ClientContext context;
    v1::GetCheckpointRequest request;
    request.set_name(checkpoint);
    v1::Checkpoint found;
    (void)checkpoints_->GetCheckpoint(&context, request, &found);
    return found.state();
  }
  template <typename Request>
  grpc::Status Command(grpc::Status (v1::JobService::Stub::*method)(grpc::ClientContext*,
                                                                    const Request&, v1::Job*),
                       const std::string& name, v1::Job* job, const std::string& etag = "") {
    grpc::ClientContext context;
    Request request;
    request.set_name(name);
    request.set_etag(etag);
    return (jobs_.get()->*method)(&context, request, job);
  }
};

TEST_F(JobFlowTest, TakesAJobFromSubmissionToItsResult) {
  ScriptedAgent agent(server_->address(), "a", {});
  ASSERT_TRUE(WaitForNodes(1));
  const v1::Job created = Create(Request("demo"));
  EXPECT_EQ(created.name(), "projects/default/jobs/demo");
  EXPECT_EQ(created.state(), v1::JOB_STATE_QUEUED);
  ASSERT_TRUE(WaitForState(created.name(), v1::JOB_STATE_SUCCEEDED));

  const v1::Job job = Get(created.name());
  EXPECT_TRUE(job.terminal());
  EXPECT_EQ(job.output_model(), root_ + "/out/demo/final");
  EXPECT_EQ(job.progress().step(), 5);
  EXPECT_EQ(job.progress().tokens(), 5000);
  EXPECT_DOUBLE_EQ(job.progress().loss(), 2.0);
  ASSERT_EQ(job.attempts_size(), 1);
  EXPECT_EQ(job.attempts(0).placements_size(), 2);
  EXPECT_EQ(job.attempts(0).failed_rank(), -1);
  EXPECT_EQ(agent.LiveRanks(), 0);
  for (const char* type : {"JobCreated", "AttemptReserved", "DataPrepared", "AttemptRunning",
                           "CheckpointCommitted", "CheckpointAvailable", "JobSucceeded"}) {
    EXPECT_THAT(EventTypes(job.name()), Contains(type));
  }

  grpc::ClientContext context;
  v1::ListCheckpointsRequest list;
  list.set_parent(job.name());
  v1::ListCheckpointsResponse checkpoints;
  ASSERT_TRUE(checkpoints_->ListCheckpoints(&context, list, &checkpoints).ok());
  ASSERT_EQ(checkpoints.checkpoints_size(), 3);
  EXPECT_TRUE(checkpoints.checkpoints(0).final());
  EXPECT_EQ(checkpoints.checkpoints(1).step(), 4);
  EXPECT_EQ(checkpoints.checkpoints(1).state(), v1::CHECKPOINT_STATE_AVAILABLE);
  EXPECT_EQ(checkpoints.checkpoints(1).bytes(), 1234);

  grpc::ClientContext metrics_context;
  v1::QueryMetricsRequest query;
  query.set_name(job.name());
  v1::QueryMetricsResponse metrics;
  ASSERT_TRUE(jobs_->QueryMetrics(&metrics_context, query, &metrics).ok());
  ASSERT_EQ(metrics.samples_size(), 5);
  EXPECT_EQ(metrics.samples(4).step(), 5);
  EXPECT_DOUBLE_EQ(metrics.samples(4).step_seconds(), 0.2) << "of the slowest rank";
  EXPECT_EQ(metrics.samples(4).peak_memory_bytes(), 1001);

  grpc::ClientContext load_context;
  v1::GetExpertLoadRequest get_load;
  get_load.set_name(job.name());
  v1::ExpertLoad load;
  ASSERT_TRUE(jobs_->GetExpertLoad(&load_context, get_load, &load).ok());
  EXPECT_EQ(load.layers(0).tokens_per_expert(0), 7);

  grpc::ClientContext log_context;
  v1::StreamLogsRequest logs;
  logs.set_name(job.name());
  logs.set_rank(1);
  logs.set_tail_lines(1);
  auto reader = jobs_->StreamLogs(&log_context, logs);
  v1::StreamLogsResponse lines;
  ASSERT_TRUE(reader->Read(&lines));
  EXPECT_EQ(lines.text(), "and loads\xEF\xBF\xBD\n") << "UTF-8 whatever the rank wrote";
  EXPECT_EQ(lines.node(), "a");
  EXPECT_FALSE(reader->Read(&lines));
  EXPECT_TRUE(reader->Finish().ok());

  for (const int rank : {-2, 2}) {
    grpc::ClientContext unknown_context;
    logs.set_rank(rank);
    const grpc::Status unknown = jobs_->StreamLogs(&unknown_context, logs)->Finish();
    EXPECT_EQ(unknown.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(unknown.error_message(),
                HasSubstr(absl::StrCat("rank: is ", rank, "; attempt 1 has ranks 0 to 1")));
  }
  grpc::ClientContext preparation_context;
  logs.set_rank(-1);
  EXPECT_TRUE(jobs_->StreamLogs(&preparation_context, logs)->Finish().ok());
}

TEST_F(JobFlowTest, RestartsTheWholeGangAfterARankDies) {
  ScriptedAgent agent(server_->address(), "a", {.fail_in_attempt = 1});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_SUCCEEDED));
  const v1::Job job = Get(name);
  ASSERT_EQ(job.attempts_size(), 2);
  EXPECT_EQ(job.attempts(0).outcome().code(), "KILLED");
  EXPECT_EQ(job.attempts(0).failed_rank(), 0);
  EXPECT_EQ(job.attempts(0).exit_code(), 137);
  EXPECT_THAT(job.attempts(0).outcome().evidence(), Contains("the last line"));
  EXPECT_THAT(EventTypes(name), Contains("JobRestarting"));
}

TEST_F(JobFlowTest, StopsAtOnceWhenTheUserHasToAct) {
  ScriptedAgent bad_data(server_->address(), "a",
                         {.data_error = "train.jsonl line 3: no assistant turn"});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_FAILED));
  const v1::Job job = Get(name);
  EXPECT_EQ(job.reason().code(), "DATA");
  EXPECT_EQ(job.reason().domain(), v1::FAILURE_DOMAIN_USER);
  EXPECT_THAT(job.reason().message(), HasSubstr("line 3"));
  EXPECT_EQ(job.epoch(), 1);
}

TEST_F(JobFlowTest, NamesTheNodeAndThePathThatItCannotUse) {
  ScriptedAgent agent(server_->address(), "a", {.probe_problems = {"/out is not writable"}});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_FAILED));
  EXPECT_THAT(Get(name).reason().message(), HasSubstr("on node a: /out is not writable"));
}

TEST_F(JobFlowTest, PausesWithACheckpointAndGoesOnFromIt) {
  ScriptedAgent agent(server_->address(), "a", {.save_interval = 0, .hold_before_step = 4});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(Wait([&] { return Get(name).progress().step() == 3; }));
  v1::Job job;
  ASSERT_TRUE(Command(&v1::JobService::Stub::PauseJob, name, &job).ok());
  EXPECT_EQ(job.desired_state(), v1::DESIRED_STATE_PAUSE);
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_PAUSED));
  EXPECT_THAT(Get(name).reason().message(), HasSubstr("after step 3"));
  EXPECT_EQ(agent.LiveRanks(), 0);
  agent.Release();
  ASSERT_TRUE(Command(&v1::JobService::Stub::ResumeJob, name, &job).ok());
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_SUCCEEDED));
  job = Get(name);
  ASSERT_EQ(job.attempts_size(), 2);
  EXPECT_EQ(job.attempts(1).resumed_from_step(), 3);
}

TEST_F(JobFlowTest, CancelAndDeleteLeaveNoProcess) {
  ScriptedAgent agent(server_->address(), "a", {.hold_before_step = 2});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_RUNNING));
  EXPECT_EQ(agent.LiveRanks(), 2);
  v1::Job job;
  EXPECT_EQ(Command(&v1::JobService::Stub::CancelJob, name, &job, "stale").error_code(),
            grpc::StatusCode::ABORTED);
  ASSERT_TRUE(Command(&v1::JobService::Stub::CancelJob, name, &job).ok());
  ASSERT_TRUE(Command(&v1::JobService::Stub::CancelJob, name, &job).ok()) << "idempotent";
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_CANCELLED));
  EXPECT_EQ(agent.LiveRanks(), 0);
  const auto pause = Command(&v1::JobService::Stub::PauseJob, name, &job);
  EXPECT_EQ(pause.error_code(), grpc::StatusCode::FAILED_PRECONDITION);

  ASSERT_TRUE(Command(&v1::JobService::Stub::RetryJob, name, &job).ok());
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_RUNNING));
  grpc::ClientContext context;
  v1::DeleteJobRequest request;
  request.set_name(name);
  v1::DeleteJobResponse response;
  ASSERT_TRUE(jobs_->DeleteJob(&context, request, &response).ok());
  ASSERT_TRUE(Wait([&] { return Get(name).name().empty(); }));
  EXPECT_EQ(agent.LiveRanks(), 0);
}

TEST_F(JobFlowTest, AJobCancelledAfterItsResultWasSavedIsNotTrainedAgain) {
  ScriptedAgent agent(server_->address(), "a", {.hold_publishing = true});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  const std::string result = name + "/checkpoints/final";
  ASSERT_TRUE(Wait([&] { return StateOf(result) == v1::CHECKPOINT_STATE_COMMITTED; }));
  v1::Job job;
  ASSERT_TRUE(Command(&v1::JobService::Stub::CancelJob, name, &job).ok());
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_CANCELLED));
  const grpc::Status early = Command(&v1::JobService::Stub::RetryJob, name, &job);
  agent.Release();
  agent.Reconnect(server_->address());
  EXPECT_EQ(early.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(early.error_message(),
              HasSubstr("is being put in place as " + root_ + "/out/demo/final"));

  ASSERT_TRUE(Wait([&] { return StateOf(result) == v1::CHECKPOINT_STATE_AVAILABLE; }));
  const grpc::Status late = Command(&v1::JobService::Stub::RetryJob, name, &job);
  EXPECT_EQ(late.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(late.error_message(), HasSubstr("is complete in " + root_ + "/out/demo/final"));
  EXPECT_EQ(agent.Starts(), (std::map<int64_t, int>{{1, 1}}));
}

TEST_F(JobFlowTest, QueuesAJobUntilSlotsAreFree) {
  ScriptedAgent agent(server_->address(), "a", {.hold_before_step = 2});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string first = Create(Request("first")).name();
  ASSERT_TRUE(WaitForState(first, v1::JOB_STATE_RUNNING));
  const std::string second = Create(Request("second")).name();
  ASSERT_TRUE(Wait([&] { return Get(second).queue_position() == 1; }));
  EXPECT_EQ(Get(second).state(), v1::JOB_STATE_QUEUED);
  agent.Release();
  ASSERT_TRUE(WaitForState(second, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(Get(first).state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(JobFlowTest, SpreadsAGangOverNodesAndRelaysTheRendezvous) {
  ScriptedAgent a(server_->address(), "a", {.hold_before_step = 2});
  ScriptedAgent b(server_->address(), "b", {.hold_before_step = 2});
  ASSERT_TRUE(WaitForNodes(2));
  const std::string name = Create(Request("demo", 4)).name();
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_RUNNING));
  EXPECT_EQ(a.LiveRanks(), 2);
  EXPECT_EQ(b.LiveRanks(), 2);
}

TEST_F(JobFlowTest, ARestartedCoordinatorGoesOnWithWhatRuns) {
  ScriptedAgent agent(server_->address(), "a", {.hold_before_step = 3});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(Wait([&] { return Get(name).progress().step() == 2; }));
  grpc::ClientContext context;
  v1::WatchJobsRequest watch;
  watch.set_parent(name);
  auto stream = jobs_->WatchJobs(&context, watch);
  v1::WatchJobsResponse message;
  while (stream->Read(&message)) {
    if (message.has_bookmark() && message.bookmark().snapshot_complete()) break;
  }
  const std::string token = message.resume_token();
  ASSERT_FALSE(token.empty());

  server_.reset();
  while (stream->Read(&message)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  StartCoordinator();
  agent.Reconnect(server_->address());
  ASSERT_TRUE(WaitForNodes(1));
  EXPECT_EQ(agent.LiveRanks(), 2);
  agent.Release();
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_SUCCEEDED));
  EXPECT_EQ(Get(name).epoch(), 1);
  EXPECT_EQ(agent.Starts(), (std::map<int64_t, int>{{1, 1}}));

  // The watcher goes on where it was: every event once, steps 3 to 5, the end.
  watch.set_resume_token(token);
  grpc::ClientContext again;
  stream = jobs_->WatchJobs(&again, watch);
  std::vector<int64_t> events, steps;
  bool done = false;
  while (!(done && steps.size() >= 3) && stream->Read(&message)) {
    EXPECT_FALSE(message.has_bookmark() && message.bookmark().snapshot_complete());
    for (const auto& event : message.events()) events.push_back(event.sequence());
    if (message.has_step()) steps.push_back(message.step().step());
    done = done || message.job().state() == v1::JOB_STATE_SUCCEEDED;
  }
  again.TryCancel();
  EXPECT_EQ(steps, (std::vector<int64_t>{3, 4, 5}));
  ASSERT_FALSE(events.empty());
  EXPECT_TRUE(std::is_sorted(events.begin(), events.end()));
  EXPECT_EQ(std::adjacent_find(events.begin(), events.end()), events.end());
}

TEST_F(JobFlowTest, DrainingANodeSavesAndMovesItsJobs) {
  ScriptedAgent a(server_->address(), "a", {.save_interval = 0, .hold_before_step = 3});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(Wait([&] { return Get(name).progress().step() == 2; }));
  ScriptedAgent b(server_->address(), "b", {});
  ASSERT_TRUE(WaitForNodes(2));
  grpc::ClientContext context;
  v1::DrainNodeRequest request;
  request.set_name("nodes/a");
  v1::Node node;
  ASSERT_TRUE(nodes_->DrainNode(&context, request, &node).ok());
  EXPECT_TRUE(node.cordoned());
  ASSERT_TRUE(WaitForState(name, v1::JOB_STATE_SUCCEEDED));
  const v1::Job job = Get(name);
  EXPECT_EQ(job.attempts(0).outcome().code(), "NODE_DRAINING");
  EXPECT_EQ(job.attempts(1).resumed_from_step(), 2);
  EXPECT_EQ(job.attempts(1).placements(0).node(), "b");
}

TEST_F(JobFlowTest, SavesOnRequestAndRemovesACheckpointOnRequest) {
  ScriptedAgent agent(server_->address(), "a", {.save_interval = 0, .hold_before_step = 3});
  ASSERT_TRUE(WaitForNodes(1));
  const std::string name = Create(Request("demo")).name();
  ASSERT_TRUE(Wait([&] { return Get(name).progress().step() == 2; }));
  grpc::ClientContext context;
  v1::CreateCheckpointRequest create;
  create.set_parent(name);
  v1::CreateCheckpointResponse created;
  ASSERT_TRUE(checkpoints_->CreateCheckpoint(&context, create, &created).ok());
  v1::GetCheckpointRequest get;
  get.set_name(name + "/checkpoints/2");
  const auto state = [&] {
    grpc::ClientContext get_context;
    v1::Checkpoint checkpoint;
    (void)checkpoints_->GetCheckpoint(&get_context, get, &checkpoint);
    return checkpoint.state();
  };
  ASSERT_TRUE(Wait([&] { return state() == v1::CHECKPOINT_STATE_AVAILABLE; }));
  grpc::ClientContext delete_context;
  v1::DeleteCheckpointRequest remove;
  remove.set_name(get.name());
  v1::DeleteCheckpointResponse removed;
  ASSERT_TRUE(checkpoints_->DeleteCheckpoint(&delete_context, remove, &removed).ok());
  EXPECT_EQ(state(), v1::CHECKPOINT_STATE_UNSPECIFIED);
  ASSERT_TRUE(
      Wait([&] { return agent.removed().count(root_ + "/out/demo/checkpoints/step-2") > 0; }));
}

TEST_F(JobFlowTest, RefusesASecondAgentOfTheSameName) {
  ScriptedAgent first(server_->address(), "a", {});
  ASSERT_TRUE(WaitForNodes(1));
  ScriptedAgent second(server_->address(), "a", {});
  ASSERT_TRUE(
      Wait([&] { return second.last_status().error_code() == grpc::StatusCode::ALREADY_EXISTS; }));
  EXPECT_THAT(second.last_status().error_message(), HasSubstr("give this one another --node"));
}

}  // namespace
}  // namespace switchyard::coordinator
