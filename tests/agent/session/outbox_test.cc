#include "worker/agent/session/outbox.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "worker/agent/session/backoff.h"

namespace switchyard::agent {
namespace {

using ::testing::ElementsAre;

v1::ConnectRequest Step(int64_t step) {
  v1::ConnectRequest message;
  message.mutable_rank_report()->mutable_line()->mutable_step()->set_step(step);
  return message;
}

v1::ConnectRequest Eval() {
  v1::ConnectRequest message;
  message.mutable_rank_report()->mutable_line()->mutable_eval();
  return message;
}

v1::ConnectRequest Status(const std::string& job, v1::AttemptState state) {
  v1::ConnectRequest message;
  message.mutable_attempt_status()->set_job_uid(job);
  message.mutable_attempt_status()->set_state(state);
  return message;
}

std::vector<std::string> Drain(Outbox& outbox) {
  std::vector<std::string> said;
  while (auto message = outbox.Pop()) {
    if (message->has_heartbeat()) said.push_back("heartbeat");
    if (message->has_attempt_status()) {
      said.push_back(message->attempt_status().job_uid() + " " +
                     std::to_string(message->attempt_status().state()));
    }
    if (message->has_rank_report()) {
      const auto& line = message->rank_report().line();
      said.push_back(line.has_eval() ? "eval" : "step " + std::to_string(line.step().step()));
    }
  }
  return said;
}

TEST(OutboxTest, DropsTheOldestReportsAndNeverALifecycleMessage) {
  Outbox outbox(3);
  outbox.Push(Status("a", v1::ATTEMPT_STATE_RUNNING));
  outbox.Push(Eval());
  for (int step = 1; step <= 4; ++step) outbox.Push(Step(step));
  EXPECT_EQ(outbox.dropped_reports(), 2);
  EXPECT_THAT(Drain(outbox), ElementsAre("a 4", "eval", "step 3", "step 4"));
}

TEST(OutboxTest, KeepsOnlyTheNewestStatusOfAnAttemptAndItComesAfterEarlierSteps) {
  Outbox outbox;
  outbox.Push(Status("a", v1::ATTEMPT_STATE_STARTING));
  outbox.Push(Status("b", v1::ATTEMPT_STATE_STARTING));
  outbox.Push(Step(9));
  outbox.Push(Status("a", v1::ATTEMPT_STATE_ENDED));
  EXPECT_THAT(Drain(outbox), ElementsAre("b 3", "step 9", "a 6"));
}

TEST(OutboxTest, HeartbeatsGoFirst) {
  Outbox outbox;
  outbox.Push(Step(1));
  v1::ConnectRequest beat;
  beat.mutable_heartbeat();
  outbox.Push(beat);
  EXPECT_THAT(Drain(outbox), ElementsAre("heartbeat", "step 1"));
}

TEST(OutboxTest, ALostSessionCountsItsReportsAsDropped) {
  Outbox outbox;
  outbox.Push(Step(1));
  outbox.Push(Status("a", v1::ATTEMPT_STATE_RUNNING));
  outbox.Clear();
  EXPECT_TRUE(outbox.empty());
  EXPECT_EQ(outbox.dropped_reports(), 1);
}

TEST(BackoffTest, StaysWithinADoublingLimitAndSpreads) {
  Backoff backoff(std::chrono::milliseconds(200), std::chrono::milliseconds(5000), 7);
  std::vector<int64_t> delays;
  for (int64_t limit : {200, 400, 800, 1600, 3200, 5000, 5000}) {
    delays.push_back(backoff.Next().count());
    EXPECT_GE(delays.back(), 0);
    EXPECT_LE(delays.back(), limit);
  }
  std::sort(delays.begin(), delays.end());
  EXPECT_EQ(std::unique(delays.begin(), delays.end()), delays.end());
  backoff.Reset();
  EXPECT_LE(backoff.Next().count(), 200);
}

}  // namespace
}  // namespace switchyard::agent
