// An agent that speaks of ranks which run on another node: nothing of it is kept.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>

#include "tests/coordinator/support/coordinator_fixture.h"
#include "tests/coordinator/support/scripted_agent.h"

namespace switchyard::coordinator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ForeignAgentTest : public CoordinatorFixture {
 protected:
  std::string Logs(const std::string& job) {
    grpc::ClientContext context;
    v1::StreamLogsRequest request;
    request.set_name(job);
    const auto stream = jobs_->StreamLogs(&context, request);
    v1::StreamLogsResponse chunk;
    std::string text;
    while (stream->Read(&chunk)) text += chunk.text();
    (void)stream->Finish();
    return text;
  }
};

TEST_F(ForeignAgentTest, WhatItSaysOfRanksElsewhereIsDropped) {
  ScriptedAgent honest(server_->address(), "node-a", {.hold_before_step = 3});
  ASSERT_TRUE(WaitForNodes(1));
  const v1::Job job = Create(Request("job"));
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_RUNNING));
  ASSERT_TRUE(Wait([&] { return Get(job.name()).progress().step() >= 2; }));

  const auto stub = agent::v1::AgentService::NewStub(channel_);
  grpc::ClientContext context;
  const auto stream = stub->Connect(&context);
  const auto say = [&](const auto& fill) {
    agent::v1::ConnectRequest message;
    fill(message);
    EXPECT_TRUE(stream->Write(message));
  };
  say([](auto& message) {
    message.mutable_hello()->set_node("node-b");
    message.mutable_hello()->set_incarnation("i");
    message.mutable_hello()->set_boot_id("b");
    message.mutable_hello()->set_protocol_min(1);
    message.mutable_hello()->set_protocol_max(1);
  });
  say([&](auto& message) {
    auto& report = *message.mutable_rank_report();
    report.set_job_uid(job.uid());
    report.set_epoch(1);
    report.set_rank(0);
    report.mutable_line()->mutable_eval()->set_step(2);
    report.mutable_line()->mutable_eval()->set_loss(666);
  });
  say([&](auto& message) {
    auto& published = *message.mutable_checkpoint_published();
    published.set_job_uid(job.uid());
    published.set_epoch(1);
    published.set_step(2);
    published.set_final_path("/forged");
    published.set_error("forged");
  });
  say([&](auto& message) {
    auto& chunk = *message.mutable_log_chunk();
    chunk.set_job_uid(job.uid());
    chunk.set_epoch(1);
    chunk.set_rank(0);
    chunk.set_offset(1 << 20);
    chunk.set_text("forged line\n");
  });
  // Acknowledged, so that an agent with a stale log does not send it for ever.
  agent::v1::ConnectResponse answer;
  while (stream->Read(&answer) && !answer.has_log_ack()) {
  }
  EXPECT_TRUE(answer.has_log_ack());
  context.TryCancel();
  (void)stream->Finish();

  honest.Release();
  ASSERT_TRUE(WaitForState(job.name(), v1::JOB_STATE_SUCCEEDED));
  EXPECT_THAT(Logs(job.name()), Not(HasSubstr("forged")));
  EXPECT_NE(Get(job.name()).progress().eval_loss(), 666);
}

}  // namespace
}  // namespace switchyard::coordinator
